"""The demo that tests look at, run once; they leave it as it is."""

import pytest
from labelled import small_teacher
from ran_demo import SEED, Ran

from depthsieve.demo import run as demo
from depthsieve.demo.settings import DemoSettings


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("demo")
    teacher = str(small_teacher(folder / "teacher"))
    settings = DemoSettings(scenes=7, seed=SEED, steps=3, teacher=teacher)
    return Ran(folder / "out", settings, demo.run_demo(folder / "out", progress=False, settings=settings))
