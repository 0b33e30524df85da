"""Reading Zarr arrays straight from the disk: the same values as zarr-python, and no wrong ones whatever is damaged."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, ZstdCodec

from depthsieve.store.direct import DirectArray, open_direct
from depthsieve.store.layout import layout_of

PACKINGS = {
    "none": [],
    "blosc": [BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")],
    "lz4": [BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")],
    "plain": [BloscCodec(cname="blosclz", clevel=1, shuffle="noshuffle")],
    "zstd": [ZstdCodec(level=1)],
    "zstd+checksum": [ZstdCodec(level=1, checksum=True)],
    "gzip": [GzipCodec(level=1)],
}
TYPES = ("int8", "uint8", "int16", "uint32", "int64", "float16", "float32", "float64")


def write(
    folder: Path, values: np.ndarray[Any, Any], packing: str = "blosc", checked: bool = True, index: str = "end"
) -> Path:
    """An array as zarr-python writes it: a shard with a chunk a row, or with ``index`` "" one chunk."""
    chain = [BytesCodec(), *PACKINGS[packing], *([Crc32cCodec()] if checked else [])]
    codecs: list[Any] = chain
    if index:
        codecs = [ShardingCodec(chunk_shape=(1, *values.shape[1:]), codecs=chain, index_location=index)]
    array = zarr.create_array(
        store=str(folder),
        shape=values.shape,
        dtype=values.dtype,
        chunks=values.shape,
        serializer=codecs[0],
        compressors=codecs[1:],
        filters=[],
        fill_value=0,
        config={"write_empty_chunks": True},
    )
    array[...] = values
    return folder


def opened(folder: Path) -> DirectArray:
    array = open_direct(str(folder), (folder / "zarr.json").read_bytes())
    assert array is not None
    return array


def data_file(folder: Path) -> Path:
    (file,) = (path for path in folder.rglob("c/**/*") if path.is_file())
    return file


def smooth(shape: tuple[int, ...], dtype: str = "float16", seed: int = 0) -> np.ndarray[Any, Any]:
    return np.cumsum(np.random.default_rng(seed).integers(0, 3, shape), axis=-1).astype(dtype)


def read_row(array: DirectArray, row: int) -> np.ndarray[Any, Any]:
    out = np.empty(array.shape[1:], array.dtype)
    array.read_into(row, out)
    return out


# --- the same values as zarr-python


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sides=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    dtype=st.sampled_from(TYPES),
    packing=st.sampled_from(sorted(PACKINGS)),
    checked=st.booleans(),
    index=st.sampled_from(["end", "start", ""]),
    noise=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_known_chain_gives_what_zarr_gives(tmp_path_factory, sides, dtype, packing, checked, index, noise, seed):
    values = smooth(tuple(sides), dtype, seed)
    if noise:
        values = np.frombuffer(np.random.default_rng(seed).bytes(values.nbytes), dtype).reshape(values.shape)
    folder = write(tmp_path_factory.mktemp("array") / "a", values, packing, checked, index)
    array, expected = opened(folder), zarr.open_array(folder, mode="r")
    assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
    assert array.whole().tobytes() == expected[...].tobytes() == values.tobytes()
    for row in range(len(values)):
        assert read_row(array, row).tobytes() == values[row].tobytes()
    start, stop = sorted((seed % (len(values) + 1), len(values) // 2))
    assert array.rows(start, stop).tobytes() == values[start:stop].tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"zarr_format": 2},
        {"node_type": "group"},
        {"storage_transformers": [{"name": "other"}]},
        {"an_extension": {"name": "other", "must_understand": True}},
        {"data_type": "complex64"},
        {"data_type": {"name": "float16"}},
        {"shape": [4, 5, 7]},
        {"shape": []},
        {"shape": [4, 5, -6]},
        {"chunk_key_encoding": {"name": "v2"}},
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 5, 6]}}},
        {"chunk_grid": {"name": "rectangular"}},
        {"codecs": []},
        {"codecs": [{"name": "bytes", "configuration": {"endian": "big"}}]},
        {"codecs": [{"name": "bytes"}]},
        {"codecs": [{"name": "transpose"}, {"name": "bytes", "configuration": {"endian": "little"}}]},
        {"codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "lz4"}]},
        {"codecs": None},
        {"shape": [2**20, 2**20, 2**20], "chunk_grid": {"name": "regular"}},
    ],
    ids=str,
)
def test_any_other_layout_is_left_to_zarr(tmp_path: Path, change: dict[str, Any]) -> None:
    document = json.loads((write(tmp_path, smooth((4, 5, 6))) / "zarr.json").read_text())
    assert layout_of(json.dumps(document).encode()) is not None
    assert layout_of(json.dumps(document | change).encode()) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chunk_shape", [2, 5, 6]),
        ("index_codecs", [{"name": "bytes", "configuration": {"endian": "little"}}]),
        ("index_codecs", [{"name": "bytes", "configuration": {"endian": "big"}}, {"name": "crc32c"}]),
        ("codecs", [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}, {"name": "gzip"}]),
    ],
)
def test_any_other_shard_is_left_to_zarr(tmp_path: Path, name: str, value: Any) -> None:
    document = json.loads((write(tmp_path, smooth((4, 5, 6))) / "zarr.json").read_text())
    document["codecs"][0]["configuration"][name] = value
    assert layout_of(json.dumps(document).encode()) is None


def test_a_chunk_that_is_too_large_to_be_trusted_is_left_to_zarr(tmp_path: Path) -> None:
    document = json.loads((write(tmp_path, smooth((4, 5, 6))) / "zarr.json").read_text())
    document["shape"] = document["chunk_grid"]["configuration"]["chunk_shape"] = [4, 2**20, 2**20]
    document["codecs"][0]["configuration"]["chunk_shape"] = [1, 2**20, 2**20]
    assert layout_of(json.dumps(document).encode()) is None


# --- damage


@pytest.mark.parametrize("index", ["end", "start", ""])
def test_a_flip_of_any_bit_is_told_and_never_read(tmp_path: Path, index: str) -> None:
    values = smooth((3, 4, 5))
    file = data_file(write(tmp_path / "a", values, "blosc", True, index))
    intact = file.read_bytes()
    for bit in range(0, 8 * len(intact), 1 if index == "end" else 5):
        damaged = bytearray(intact)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        told = 0
        for row in range(3):
            try:
                assert (read_row(opened(tmp_path / "a"), row) == values[row]).all(), bit
            except ValueError:
                told += 1
        assert told == 1 or (told == 3 and (not index or bit // 8 < 52 or bit // 8 >= len(intact) - 52)), bit


@pytest.mark.parametrize("packing", sorted(PACKINGS))
@pytest.mark.parametrize("index", ["end", ""])
def test_wherever_a_file_ends_it_is_told(tmp_path: Path, packing: str, index: str) -> None:
    file = data_file(write(tmp_path / "a", smooth((3, 4, 5)), packing, True, index))
    intact = file.read_bytes()
    for length in range(0, len(intact), 1 if packing == "blosc" else 7):
        file.write_bytes(intact[:length])
        with pytest.raises(ValueError, match=r"cut short|checksum|cannot hold"):
            opened(tmp_path / "a").whole()


@pytest.mark.parametrize("packing", sorted(PACKINGS))
def test_damage_without_a_checksum_ends_in_an_error_or_in_values(tmp_path: Path, packing: str) -> None:
    """No crash, and no buffer that is only partly filled: whatever a header claims."""
    values = smooth((1, 16, 16))
    file = data_file(write(tmp_path / "a", values, packing, False, ""))
    intact = file.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(400):
        damaged = bytearray(intact)
        for place in random.integers(0, min(len(intact), 40), 2):
            damaged[place] ^= 1 << random.integers(8)
        file.write_bytes(damaged)
        try:
            assert opened(tmp_path / "a").whole().shape == values.shape
        except (ValueError, RuntimeError):
            continue


def other_content(values: np.ndarray[Any, Any], packing: str, folder: Path) -> bytes:
    return data_file(write(folder, values, packing, False, "")).read_bytes()


@pytest.mark.parametrize("packing", ["blosc", "zstd", "gzip", "none"])
@pytest.mark.parametrize("sides", [(1, 3, 5), (1, 5, 5)])
def test_a_chunk_of_another_size_is_refused(tmp_path: Path, packing: str, sides: tuple[int, ...]) -> None:
    file = data_file(write(tmp_path / "a", smooth((1, 4, 5)), packing, False, ""))
    file.write_bytes(other_content(smooth(sides), packing, tmp_path / "b"))
    with pytest.raises(ValueError, match=r"claims|does not unpack|cannot hold"):
        opened(tmp_path / "a").whole()


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """A small chunk that claims, or unpacks to, a gigabyte takes no more memory than what it should hold."""
    for packing in ("gzip", "zstd", "blosc"):
        values = np.zeros((1, 64, 64), np.uint8)
        file = data_file(write(tmp_path / packing, values, packing, False, ""))
        bomb = other_content(np.zeros((1, 256, 1 << 18), np.uint8), packing, tmp_path / f"{packing} bomb")
        file.write_bytes(bomb[:1000])
        array = opened(tmp_path / packing)
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"claims|does not unpack"):
            array.whole()
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
        tracemalloc.stop()


def index_of(file: Path) -> np.ndarray[Any, Any]:
    return np.frombuffer(file.read_bytes()[-52:-4], np.uint64).reshape(3, 2).copy()


@pytest.mark.parametrize(
    "entry",
    [(1 << 40, 10), (0, 1 << 40), (0, 2**64 - 1), (2**64 - 1, 1), (2**64 - 8, 16), (10**4, 10)],
    ids=str,
)
def test_an_index_that_points_out_of_its_file_is_refused(tmp_path: Path, entry: tuple[int, int]) -> None:
    from google_crc32c import value

    file = data_file(write(tmp_path / "a", smooth((3, 4, 5))))
    index = index_of(file)
    index[1] = entry
    file.write_bytes(file.read_bytes()[:-52] + index.tobytes() + value(index.tobytes()).to_bytes(4, "little"))
    with pytest.raises(ValueError, match="points out of the file"):
        opened(tmp_path / "a")


def test_a_row_without_a_chunk_is_no_zeros(tmp_path: Path) -> None:
    """zarr-python reads it as the fill value; a store of ours has every chunk written."""
    from google_crc32c import value

    values = smooth((3, 4, 5))
    file = data_file(write(tmp_path / "a", values))
    index = index_of(file)
    index[1] = 2**64 - 1
    file.write_bytes(file.read_bytes()[:-52] + index.tobytes() + value(index.tobytes()).to_bytes(4, "little"))
    assert not zarr.open_array(tmp_path / "a", mode="r")[1].any()
    array = opened(tmp_path / "a")
    assert (read_row(array, 2) == values[2]).all()
    with pytest.raises(ValueError, match="row 1 has no data"):
        read_row(array, 1)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        read_row(array, 2)


@pytest.mark.parametrize("row", [-1, 3])
def test_a_row_that_is_not_there_is_an_index_error(tmp_path: Path, row: int) -> None:
    for index in ("end", ""):
        array = opened(write(tmp_path / f"a{index}", smooth((3, 4, 5)), index=index))
        with pytest.raises(IndexError, match=f"row {row} of 3"):
            read_row(array, row)
    plain = opened(write(tmp_path / "plain", smooth((3, 4)), "none", False, ""))
    for start, stop in ((-1, 2), (2, 1), (0, 4)):
        with pytest.raises(IndexError):
            plain.rows(start, stop)
