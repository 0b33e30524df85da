"""What a user calls: a page of code that uses all of it runs, and every public name is on that page."""

import re
from pathlib import Path

import user_page
from labelled import write_photos

import depthsieve

SUMMARIES = re.compile(r"(Summary|Settings)$")


def test_a_page_of_user_code_runs(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 2)
    found = user_page.everything(photos, tmp_path)
    assert (found["scanned"], found["planned"], found["labelled"]) == (2, 2, (2, 2, 2, 2))
    assert (found["recalibrated"], found["fused"], found["sound"], found["kept"], found["exported"]) == (
        2,
        2,
        True,
        2,
        2,
    )
    assert (found["seen"], found["shown"]) == ((2, True), 2)
    assert (found["imported"], found["aligned"]) == (2, 2)
    assert found["calibrated"] == (20, True)
    assert found["quantity"] == ("disparity", "disparity")
    assert len(set(found["shapes"])) == 1  # type: ignore[call-overload]
    assert len(found["evaluated"]) == 2 and len(found["losses"]) == 1  # type: ignore[arg-type]


def test_the_page_names_everything_public() -> None:
    """mypy checks that page strictly, so a public name without types would be found."""
    page = Path(user_page.__file__).read_text()
    used = set(re.findall(r"depthsieve\.(\w+)", page))
    assert {name for name in depthsieve.__all__ if not SUMMARIES.search(name)} - used == {"Store"}  # open_store has it
