"""The job scripts of docs/cluster as schedulers run them: in an array, signalled, resumed, and finished.

They run as they stand, with a `site.sh` of the test's own, or with the container's paths and device exchanged.
"""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from commandline import command
from labelled import write_photos
from patience import wait_for
from plug_in import MODULE, install

from depthsieve.store import open_store
from depthsieve.store.create import index_fault

RECIPES = Path(__file__).parents[2] / "docs" / "cluster"
PHOTOS = 18
"""In shards of one image, six for each of three parts: more than are in flight at once."""

WAIT = """
        while os.path.exists(os.environ.get("HOLD", "")):
            time.sleep(0.02)
"""
HELD = MODULE.replace("import hashlib\n", "import hashlib\nimport os\nimport time\n").replace(
    "    def predict(self, batch):\n", f"    def predict(self, batch):{WAIT}"
)
"""A teacher that waits while the file that HOLD names is there."""


class Site:
    """A shared disk with photos, one of them broken, the recipes, and a teacher."""

    def __init__(self, folder: Path) -> None:
        self.jobs, self.photos, self.store = folder / "jobs", folder / "photos", folder / "labels"
        self.log = folder / "log"
        self.jobs.mkdir()
        for script in RECIPES.glob("*.sh"):
            (self.jobs / script.name).write_bytes(script.read_bytes())
        (self.jobs / "depthsieve.toml").write_text("shard-size = 1\n")
        write_photos(self.photos, PHOTOS)
        (self.photos / "broken.jpg").write_bytes(b"")
        modules = install(folder / "modules", module=HELD)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        settings = {"PATH": path, "PYTHONPATH": modules, "PHOTOS": self.photos, "LABELS": self.store}
        settings |= {"TEACHER": "brightness", "DEVICE": "cpu", "SLURM_CPUS_PER_TASK": 1}
        exported = "".join(f"export {name}={shlex.quote(str(value))}\n" for name, value in settings.items())
        (self.jobs / "site.sh").write_text(exported)

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
        """A job, whose output goes to :attr:`log`."""
        with self.log.open("wb") as log:
            env = os.environ | environment
            return subprocess.Popen(arguments, cwd=self.jobs, env=env, stdout=log, stderr=subprocess.STDOUT)

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        return self.start(*arguments, **environment).wait(), self.log.read_text()

    def statuses(self) -> dict[str, int]:
        """How many images the index has of each status, once it was seen to fit the store."""
        assert index_fault(open_store(self.store)) == (None, False)
        found = pq.read_table(self.store / "index.parquet")["status"].to_pylist()
        return {status: found.count(status) for status in sorted({*found})}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.slow
def test_an_array_is_interrupted_resumed_and_finished(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = site.run("bash", "slurm-plan.sh")
    assert (code, "  failed: default/broken.jpg: empty file\n" in shown) == (0, True), shown

    def part(number: int) -> dict[str, str]:
        return {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_COUNT": "3"}

    code, shown = site.run("bash", "slurm-label.sh", **part(1))
    assert (code, "6 of 19 images labelled" in shown) == (0, True), shown
    hold = tmp_path / "hold"
    hold.touch()
    try:
        second = site.start("bash", "slurm-label.sh", **part(2), HOLD=str(hold))
        wait_for(lambda: list((site.store / "leases").glob("0000-*")), "a shard of the second part")
        second.send_signal(signal.SIGTERM)  # as Slurm does to the batch script: B:TERM
        told = "Interrupted: finishing the shards that fit into 60 s"
        wait_for(lambda: told in site.log.read_text() or second.poll() is not None, "depthsieve to notice the signal")
    finally:
        hold.unlink()
    second.wait()
    shown = site.log.read_text()
    assert (second.returncode, "run the same command again to resume" in shown) == (4, True), shown

    code, shown = site.run("bash", "slurm-label.sh", **part(2))
    assert (code, "12 of 19 images labelled" in shown) == (0, True), shown
    code, shown = site.run("bash", "slurm-label.sh")  # the third part never started
    assert (code, "Labelled 6 images" in shown, "18 of 19 images labelled" in shown) == (0, True, True), shown
    assert site.statuses() == {"labelled": PHOTOS, "rejected": 1}
    assert command(monkeypatch, "status", site.store) == 3
    assert "  failed: default/broken.jpg: empty file\n" in capsys.readouterr().out


@pytest.mark.slow
def test_an_indexed_job_labels_its_part_and_the_last_job_the_rest(site: Site) -> None:
    def container(name: str) -> tuple[list[str], dict[str, str]]:
        """What a pod runs, with this test's folders, and its environment."""
        text = (RECIPES / name).read_text().replace("cuda", "cpu").replace("depth-anything-v2-small", "brightness")
        text = text.replace("--threads 8", "--threads 1").replace('--threads, "8"', '--threads, "1"')
        found = yaml.safe_load(text.replace("/data/photos", str(site.photos)).replace("/data/labels", str(site.store)))
        (pod,) = found["spec"]["template"]["spec"]["containers"]
        environment = {one["name"]: one["value"] for one in pod["env"] if one["name"] != "HF_HOME"}
        return [*pod["command"], *pod.get("args", [])], environment

    def run(name: str, **more: str) -> tuple[int, str]:
        arguments, environment = container(name)
        return site.run("bash", "-c", f". ./site.sh; exec {shlex.join(arguments)}", **environment, **more)

    code, shown = run("kubernetes-plan.yaml")
    assert (code, "18 images to label in 18 shards" in shown) == (0, True), shown
    code, shown = run("kubernetes-label.yaml", JOB_COMPLETION_INDEX="15")
    assert (code, "Labelled 1 image in" in shown) == (0, True), shown
    assert [shard[-6:] for shard in open_store(site.store).committed()] == ["000015"]
    code, shown = run("kubernetes-finish.yaml")
    assert (code, "Labelled 17 images" in shown) == (0, True), shown
    assert site.statuses() == {"labelled": PHOTOS, "rejected": 1}


def test_the_array_waits_for_the_plan_and_the_last_job_for_both(tmp_path: Path) -> None:
    """As told to sbatch; that Slurm reads it so was tried with Slurm itself."""
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/calls\nwc -l < {tmp_path}/calls\n')
    sbatch.chmod(0o755)
    script = [str(RECIPES / "slurm-submit.sh"), "16"]
    done = subprocess.run(script, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "calls").read_text().splitlines() == [
        "--parsable slurm-plan.sh",
        "--parsable --kill-on-invalid-dep=yes --dependency=afterok:1 --array=1-16 slurm-label.sh",
        "--parsable --kill-on-invalid-dep=yes --dependency=afterok:1,afterany:2 slurm-label.sh",
    ]
    assert done.stdout == "plan: slurm-1.out; parts: slurm-2_1.out to slurm-2_16.out; the rest: slurm-3.out\n"
    assert subprocess.run(script[:1], capture_output=True).returncode != 0


def test_of_many_that_create_a_name_one_is_first(tmp_path: Path) -> None:
    script = [str(RECIPES / "exclusive.sh"), str(tmp_path), "60"]
    machines = [subprocess.Popen(script, stdout=subprocess.PIPE) for _ in range(3)]
    assert sum(int(machine.communicate()[0]) for machine in machines) == 60
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"name-{number}" for number in range(1, 61))
