"""What is left out of a source, and what is told of: depth maps and masks beside photos."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from labelled import write_photo
from packing import pack_tar
from PIL import Image

import depthsieve
from depthsieve.core.errors import SourceError, UsageError
from depthsieve.core.patterns import is_excluded
from depthsieve.sources.manifest import open_manifest, scan_of_manifest
from depthsieve.sources.manifest_scan import ScanSummary
from depthsieve.sources.suspects import suspect_of
from depthsieve_cli.main import cli


def scan(sources: Any, out: Path, **options: Any) -> ScanSummary:
    return depthsieve.scan(sources, out, progress=False, **options)


def ids(manifest: Path) -> list[str]:
    found: list[str] = pq.read_table(manifest)["id"].to_pylist()
    return found


def write_depth(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100).save(path)
    return path


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("depth", {"depth/1.png", "a/depth/1.png", "x.tar::depth/1.png"}),
        ("depth/", {"depth/1.png", "a/depth/1.png", "x.tar::depth/1.png"}),
        ("/depth/", {"depth/1.png"}),
        ("a/depth", {"a/depth/1.png"}),
        ("*_mask.png", {"b/1_mask.png"}),
        ("b/*.png", {"b/1_mask.png"}),
        ("*.tar", {"x.tar::depth/1.png", "x.tar::rgb/1.png"}),
        ("x.tar::rgb", {"x.tar::rgb/1.png"}),
        ("**/rgb/*", {"x.tar::rgb/1.png", "a/rgb/1.png"}),
        ("1.png", {"depth/1.png", "a/depth/1.png", "x.tar::depth/1.png", "x.tar::rgb/1.png", "a/rgb/1.png"}),
        ("Depth", set()),
        ("dep", set()),
    ],
)
def test_a_pattern_leaves_out_files_and_folders_by_name(pattern: str, paths: set[str]) -> None:
    every = {"depth/1.png", "a/depth/1.png", "x.tar::depth/1.png", "x.tar::rgb/1.png", "a/rgb/1.png", "b/1_mask.png"}
    assert {path for path in every if is_excluded(path, (pattern,))} == paths


@pytest.mark.parametrize(
    ("path", "kind", "pattern"),
    [
        ("rgb/1.png", None, ""),
        ("depth/1.png", "depth maps", "depth/"),
        ("Depth_Maps/1.png", "depth maps", "Depth_Maps/"),
        ("seq/depth_left/a/1.png", "depth maps", "depth_left/"),
        ("disp_occ_0/1.png", "depth maps", "disp_occ_0/"),
        ("a/000001.depth.png", "depth maps", "'*.depth.png'"),
        ("wds/0.tar::000001.depth.png", "depth maps", "'*.depth.png'"),
        ("frame_12_mask.jpg", "masks", "'*_mask.jpg'"),
        ("depth_0001.png", "depth maps", "'depth_*'"),
        ("SegmentationClass/1.png", "masks", "SegmentationClass/"),
        ("berlin_gtFine/1.png", None, ""),
        ("gtFine/a_labelIds.png", "masks", "gtFine/"),
        ("normals/1.png", "normal maps", "normals/"),
        ("nyu_depth_v2/kitchen/1.jpg", None, ""),
        ("in depth interview.jpg", None, ""),
        ("masked ball/1.jpg", None, ""),
        ("unmask.jpg", None, ""),
        ("normal.jpg", None, ""),
        ("1" * 5000 + "/a.jpg", None, ""),
    ],
)
def test_names_that_say_depth_or_mask_are_told(path: str, kind: str | None, pattern: str) -> None:
    assert suspect_of(path, False) == (None if kind is None else (kind, pattern))


def test_16_bits_in_one_channel_tell_too(tmp_path: Path) -> None:
    for number in range(3):
        write_photo(tmp_path / "seq" / f"{number}.jpg", 30, 20, seed=number)
        write_depth(tmp_path / "seq" / f"{number}.png")
    write_depth(tmp_path / "seq" / "3.tiff")
    summary = scan(tmp_path / "seq", tmp_path / "m.parquet")
    assert summary.notes == (
        "4 of 7 images look like depth maps (16 bits in one channel) and not like photos, such as default/0.png: leave "
        "them out with --exclude PATTERN",
    )


def test_depth_and_masks_are_told_of_left_out_and_stay_so(tmp_path: Path) -> None:
    for number in range(2):
        write_photo(tmp_path / "tum" / "rgb" / f"{number}.jpg", 30, 20, seed=number)
        write_depth(tmp_path / "tum" / "depth" / f"{number}.png")
    pack_tar(tmp_path / "tum" / "more.tar", {"x_mask.png": (tmp_path / "tum" / "depth" / "0.png").read_bytes()})
    out = tmp_path / "m.parquet"
    summary = scan(tmp_path / "tum", out)
    assert (summary.images, summary.excluded, summary.exclude) == (5, 0, ())
    assert summary.notes == (
        "2 of 5 images look like depth maps and not like photos, such as default/depth/0.png: leave them out with "
        "--exclude depth/",
        "1 of 5 images look like masks and not like photos, such as default/more.tar::x_mask.png: leave them out with "
        "--exclude '*_mask.png'",
    )
    summary = scan(tmp_path / "tum", out, exclude=["depth/"])
    assert (summary.images, summary.excluded, summary.exclude) == (3, 2, ("depth/",))
    assert len(summary.notes) == 1
    summary = scan(tmp_path / "tum", out, exclude=["*_mask.png"])  # besides what the manifest remembers
    assert (summary.images, summary.excluded, summary.exclude) == (2, 3, ("depth/", "*_mask.png"))
    assert open_manifest(out).exclude == ("depth/", "*_mask.png")
    assert scan(tmp_path / "tum", out).images == 2
    assert scan(tmp_path / "tum", out, exclude=["none", "rgb/"]).exclude == ("rgb/",)
    assert ids(out) == ["default/depth/0.png", "default/depth/1.png", "default/more.tar::x_mask.png"]
    with pytest.raises(SourceError, match="5 excluded"):
        scan(tmp_path / "tum", tmp_path / "n.parquet", exclude=["rgb", "*.png"])


@pytest.mark.parametrize("pattern", ["", "/", "**", "*", "[9-0]"])
def test_a_pattern_that_says_nothing_is_refused(tmp_path: Path, pattern: str) -> None:
    write_photo(tmp_path / "a.jpg", 30, 20, seed=0)
    with pytest.raises(UsageError, match="exclude: "):
        scan(tmp_path, tmp_path / "m.parquet", exclude=[pattern])
    with pytest.raises(UsageError, match="exclude is a list"):
        scan(tmp_path, tmp_path / "m.parquet", exclude="depth/")


def test_the_command_says_what_it_left_out(tmp_path: Path) -> None:
    write_photo(tmp_path / "p" / "a.jpg", 30, 20, seed=0)
    write_depth(tmp_path / "p" / "a_depth.png")
    command = ["scan", str(tmp_path / "p"), "-o", str(tmp_path / "m.parquet")]
    assert "Note: 1 of 2 images look like depth maps" in CliRunner().invoke(cli, command).output
    said = CliRunner().invoke(cli, [*command, "--exclude", "*_depth.png"]).output
    assert "Left out 1 file by --exclude *_depth.png, which the manifest remembers." in said and "Note" not in said


def test_rows_of_a_manifest_that_name_an_image_twice_count_once(tmp_path: Path) -> None:
    for number in range(3):
        write_photo(tmp_path / "p" / f"{number}.jpg", 30, 20, seed=number)
    scan(tmp_path / "p", tmp_path / "m.parquet")
    table = pq.read_table(tmp_path / "m.parquet")
    pq.write_table(pa.concat_tables([table, table.slice(0, 2)]), tmp_path / "both.parquet")
    found = scan_of_manifest(tmp_path / "scan", open_manifest(tmp_path / "both.parquet"), [])
    assert found.tally.images == 3 and [len(some) for some in found.images()] == [3]
    assert found.tally.notes() == ("2 rows of the manifest repeat another one; each image counts once",)
    other = table.slice(1, 1).set_column(1, table.schema.field("size"), pa.array([7], pa.int64()))
    pq.write_table(pa.concat_tables([table, other]), tmp_path / "other.parquet")
    with pytest.raises(SourceError, match=r"lists default/1\.jpg twice, with different sizes"):
        scan_of_manifest(tmp_path / "scan again", open_manifest(tmp_path / "other.parquet"), [])


def test_a_manifest_whose_types_were_changed_is_refused_by_the_column(tmp_path: Path) -> None:
    write_photo(tmp_path / "p" / "a.jpg", 30, 20, seed=0)
    scan(tmp_path / "p", tmp_path / "m.parquet")
    table = pq.read_table(tmp_path / "m.parquet")
    at = table.schema.get_field_index("width")
    pq.write_table(table.set_column(at, "width", table["width"].cast(pa.float64())), tmp_path / "m.parquet")
    with pytest.raises(SourceError, match="column 'width' is double and must be int32"):
        open_manifest(tmp_path / "m.parquet")
