"""Tables with images, in Parquet and Arrow files: which column, lists of images, hostile files, what is none."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile import encoded, photo
from packing import pack_arrow, pack_parquet
from scanned import Scanned, scanned

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.sources import Passed, open_source
from depthsieve.sources.containers import parquet, rows
from depthsieve.sources.containers.arrow import ArrowContainer
from depthsieve.sources.containers.protocol import Descriptor

FILES = {"a.jpg": encoded(photo(64, 48), "JPEG"), "b/c.png": encoded(photo(20, 30), "PNG")}
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def ids(scan: Scanned) -> list[str]:
    return [image.id for image in scan.images]


def reasons(scan: Scanned) -> dict[str, str]:
    return {image.id.partition("/")[2]: image.reason for image in scan.rejected}


def write(path: Path, table: pa.Table) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=2)
        return path
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


def test_a_parquet_file_tells_which_column_or_is_asked(tmp_path: Path) -> None:
    data = FILES["a.jpg"]
    cases = {
        "plain": ({"jpg": [data]}, None),
        "only": ({"whatever": [data]}, None),
        "named": ({"mask": [b"m"], "image": [data]}, None),
        "unclear": ({"left": [data], "right": [data]}, "which column holds the images"),
        "none": ({"text": ["words"]}, "a table without a column of image bytes (it has 'text')"),
    }
    for name, (columns, reason) in cases.items():
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        source = open_source(tmp_path / f"{name}.parquet")
        scan = scanned(source)
        if reason is None:
            assert source.read(f"default/{name}.parquet::00000000") == data and len(scan.images) == 1
        else:
            assert scan.images == () and reason in reasons(scan)[f"{name}.parquet"]
    note = {"huggingface": '{"info": {"features": {"right": {"_type": "Image"}, "left": {"_type": "Value"}}}}'}
    told = pa.table({"left": [b"no"], "right": [data]}).replace_schema_metadata(note)
    pq.write_table(told, tmp_path / "told.parquet")
    assert open_source(tmp_path / "told.parquet").read("default/told.parquet::00000000") == data


@pytest.mark.parametrize(
    "kind",
    [pa.dictionary(pa.int32(), pa.binary()), pa.large_binary(), pa.binary_view()],
    ids=["dictionary", "large", "view"],
)
@pytest.mark.parametrize("in_struct", [False, True])
def test_bytes_in_a_parquet_file_may_be_stored_in_any_way(tmp_path: Path, kind: pa.DataType, in_struct: bool) -> None:
    held = [FILES["a.jpg"], FILES["b/c.png"], None, FILES["a.jpg"]]
    column = pa.array(held, pa.binary()).cast(kind)
    pq.write_table(
        pa.table({"image": pa.StructArray.from_arrays([column], ["bytes"]) if in_struct else column}),
        tmp_path / "a.parquet",
    )
    source = open_source(tmp_path / "a.parquet")
    scan = scanned(source)
    assert [source.read(image.id) for image in scan.images] == [data for data in held if data is not None]
    assert "no image bytes" in reasons(scan)["a.parquet::00000002"]


def test_a_row_without_bytes_is_rejected_and_row_groups_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    held = [{"bytes": None, "path": "elsewhere.jpg"}, None, {"bytes": FILES["a.jpg"], "path": None}]
    pq.write_table(pa.table({"image": pa.array(held, kind)}), tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet")
    scan = scanned(source)
    assert ids(scan) == ["default/a.parquet::00000002"]
    assert all("no image bytes" in reason for reason in reasons(scan).values()) and len(scan.rejected) == 2
    monkeypatch.setattr(rows, "MAX_GROUP_BYTES", 100)
    with pytest.raises(ImageRejected, match=r"its row group has .* write the file with smaller ones"):
        open_source(tmp_path / "a.parquet").read("default/a.parquet::00000002")


def test_few_row_groups_are_held_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"{number}": os.urandom(10_000) for number in range(40)}
    path = os.fsencode(pack_parquet(tmp_path / "a.parquet", many, rows=5))
    monkeypatch.setattr(rows, "KEPT_BYTES", 120_000)
    container = parquet.ParquetContainer(path)
    read = [container.read(f"{row:08d}") for row in range(40)]
    assert read == list(many.values())
    assert list(container._groups) == [6, 7]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("image", [STRUCT, pa.binary()], ids=["struct", "bytes"])
@pytest.mark.parametrize("in_list", [pa.list_, pa.large_list], ids=["list", "large list"])
def test_lists_of_images_are_read_one_by_one(tmp_path: Path, suffix: str, image: pa.DataType, in_list: type) -> None:
    """As sets for vision-language models have them: some rows have several images, some none."""
    a, c = FILES.values()
    one = [{"bytes": data, "path": None} for data in (a, c)] if image is STRUCT else [a, c]
    table = pa.table({"text": list("wxyz"), "images": pa.array([one, [], None, one[1:]], in_list(image))})
    source = open_source(write(tmp_path / f"t{suffix}", table))
    scan = scanned(source)
    assert ids(scan) == [
        f"default/t{suffix}::{place}" for place in ("00000000::0000", "00000000::0001", "00000003::0000")
    ]
    assert [source.read(found.id) for found in scan.images] == [a, c, c]
    assert (scan.rejected, scan.skipped_other) == ((), 2)
    for place in ("00000000", "00000000::0002", "00000002::0000", "00000000::1", "00000009::0000", "00000000::"):
        with pytest.raises(SourceError):
            source.read(f"default/t{suffix}::{place}")


@pytest.mark.parametrize(
    "feature",
    ['[{"_type": "Image"}]', '{"_type": "List", "feature": {"_type": "Image"}}'],
)
def test_a_list_counts_where_its_name_or_hugging_face_s_note_says_images(tmp_path: Path, feature: str) -> None:
    table = pa.table({"views": pa.array([list(FILES.values())], pa.list_(pa.binary()))})
    scan = scanned(open_source(write(tmp_path / "t.parquet", table)))
    assert "without a column of image bytes" in reasons(scan)["t.parquet"]
    note = {"huggingface": f'{{"info": {{"features": {{"views": {feature}}}}}}}'}
    scan = scanned(open_source(write(tmp_path / "t.parquet", table.replace_schema_metadata(note))))
    assert ids(scan) == ["default/t.parquet::00000000::0000", "default/t.parquet::00000000::0001"]


def test_an_arrow_file_s_bodies_are_not_read_to_list_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"{number}": os.urandom(100_000) for number in range(40)}
    path = pack_arrow(tmp_path / "a.arrow", many, rows=10)
    real, read = Descriptor.at, []

    def at(file: Descriptor, offset: int, length: int) -> bytes:
        read.append(len(data := real(file, offset, length)))
        return data

    monkeypatch.setattr(Descriptor, "at", at)
    container = ArrowContainer(os.fsencode(path))
    assert len(list(container.members(Passed()))) == 40 and sum(read) < 10_000
    read.clear()
    assert container.read("00000025") == many["25"]
    assert len(read) == 1 and 1_000_000 < read[0] < 1_100_000  # one record batch of four


def test_offsets_of_an_arrow_file_that_lead_out_of_it_are_refused(tmp_path: Path) -> None:
    """They are not checked unless asked for, and reading through them reads what else is in memory."""
    data = bytearray(write(tmp_path / "a.arrow", pa.table({"image": [b"short"]})).read_bytes())
    end = data.rindex(b"\5\0\0\0", 0, data.index(b"short"))
    data[end : end + 4] = (5_000_000).to_bytes(4, "little")
    (tmp_path / "a.arrow").write_bytes(data)
    (rejected,) = scanned(open_source(tmp_path / "a.arrow")).rejected
    assert (rejected.id, rejected.reason) == (
        "default/a.arrow::00000000",
        "its record batch is damaged and cannot be read",
    )


def test_what_cannot_be_read_of_arrow_files_is_said(tmp_path: Path) -> None:
    table = pa.table({"image": [FILES["a.jpg"]], "kind": pa.array(["x"]).dictionary_encode()})
    assert "with dictionaries" in reasons(scanned(open_source(write(tmp_path / "d.arrow", table))))["d.arrow"]
    captions = write(tmp_path / "captions.arrow", pa.table({"caption": ["a cat"]}))
    assert "without a column of image bytes" in reasons(scanned(open_source(captions)))["captions.arrow"]
    scan = scanned(open_source(tmp_path))  # in a folder it is another file, like a table of captions in Parquet
    assert list(reasons(scan)) == ["d.arrow"] and scan.skipped_other == 1


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            ["id", "size", "mtime_ns", "width", "height", "orientation", "duplicate_of"],
            "a manifest of `depthsieve scan`",
        ),
        (["id", "keep", "reason"], "a subset that `depthsieve curate` wrote"),
    ],
)
def test_a_table_of_our_own_is_named_for_what_it_is(tmp_path: Path, columns: list[str], words: str) -> None:
    path = write(tmp_path / "t.parquet", pa.table({name: ["x"] for name in columns}))
    assert words in reasons(scanned(open_source(path)))["t.parquet"]


@pytest.mark.parametrize("suffix", [".tar", ".zip", ".parquet", ".arrow", ".h5"])
def test_a_pointer_in_a_container_s_place_says_how_to_get_it(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12345\n")
    scan = scanned(open_source(tmp_path / f"a{suffix}"))
    assert "run `git lfs pull`" in reasons(scan)[f"a{suffix}"]
