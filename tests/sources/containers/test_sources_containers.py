"""Every kind of container by one contract, and what is true of one kind only."""

import gc
import io
import multiprocessing
import os
import pickle
import subprocess
import zipfile
from abc import abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile import encoded, exif, photo
from packing import pack_arrow, pack_hdf5, pack_parquet, pack_tar, pack_zip
from PIL import Image
from scanned import Scanned, scanned

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.core.records import ImageRecord
from depthsieve.images.decode import decode
from depthsieve.sources import Listed, Passed, Source, open_source, reopen_source
from depthsieve.sources import folder as folder_source
from depthsieve.sources.containers import opening as open_containers

PHOTOS = Path(__file__).parents[3].parent / "shared" / "photos"

FILES = {
    "a.jpg": encoded(photo(64, 48), "JPEG"),
    "b/c.png": encoded(photo(20, 30), "PNG"),
    "b/turned.jpg": encoded(photo(30, 20), "JPEG", exif=exif(6)),
    "d.webp": encoded(photo(44, 33), "WEBP"),
    "e.tif": encoded(photo(10, 12), "TIFF"),
}
SIZES = [(64, 48), (20, 30), (20, 30), (44, 33), (10, 12)]


def ids(scan: Scanned) -> list[str]:
    return [image.id for image in scan.images]


def reasons(scan: Scanned) -> dict[str, str]:
    return {image.id.partition("/")[2]: image.reason for image in scan.rejected}


def looked_at(source: Source) -> list[ImageRecord]:
    """The images of a source as a scan finds them, without its sorting, which takes most of the time."""
    found = [source.look(one) if isinstance(one, Listed) else one for one in source.listing(Passed())]
    return [one for one in found if isinstance(one, ImageRecord)]


class ContainerContract:
    """What all kinds have in common. ``places`` are those of :data:`FILES`, in that order."""

    name: str
    places: list[str]

    @abstractmethod
    def pack(self, path: Path, files: Mapping[str, bytes]) -> Path: ...

    def source(self, folder: Path) -> Source:
        folder.mkdir(exist_ok=True)
        return open_source(self.pack(folder / self.name, FILES))

    def test_a_scan_finds_every_image_and_reading_gives_its_bytes(self, tmp_path: Path) -> None:
        source = self.source(tmp_path / "in")
        scan = scanned(source)
        assert ids(scan) == [f"default/{self.name}::{place}" for place in self.places]
        assert [(image.width, image.height) for image in scan.images] == SIZES
        assert [image.orientation for image in scan.images] == [1, 1, 6, 1, 1]
        assert [image.size for image in scan.images] == [len(data) for data in FILES.values()]
        mtime_ns = (tmp_path / "in" / self.name).stat().st_mtime_ns
        assert {image.mtime_ns for image in scan.images} == {mtime_ns}
        assert [source.read(image.id) for image in scan.images] == list(FILES.values())
        assert (scan.rejected, source.is_one_file, source.root) == ((), True, str(tmp_path / "in"))

    def test_it_opens_again_by_name_and_root_and_in_another_process(self, tmp_path: Path) -> None:
        source = self.source(tmp_path / "in")
        image_id = f"default/{self.name}::{self.places[1]}"
        again = reopen_source("default", source.root)
        assert again.read(image_id) == FILES["b/c.png"]
        assert pickle.loads(pickle.dumps(again)).read(image_id) == FILES["b/c.png"]
        with multiprocessing.get_context("fork").Pool(2) as pool:  # with the file open here
            assert pool.map(again.read, [image_id] * 4) == [FILES["b/c.png"]] * 4

    def test_threads_read_it_at_once(self, tmp_path: Path) -> None:
        source = self.source(tmp_path / "in")
        wanted = list(zip(self.places, FILES.values(), strict=True)) * 20
        with ThreadPoolExecutor(8) as pool:
            read = list(pool.map(lambda one: source.read(f"default/{self.name}::{one[0]}"), wanted))
        assert read == [data for _, data in wanted]

    def test_what_is_known_is_not_opened_and_another_file_is_noticed(self, tmp_path: Path) -> None:
        source = self.source(tmp_path / "in")
        first = scanned(source)
        assert scanned(source, first.images) == Scanned((), (), known=5)
        others = {name: encoded(photo(16, 16), "PNG") for name in FILES}
        self.pack(tmp_path / f"new {self.name}", others).replace(tmp_path / "in" / self.name)
        os.utime(tmp_path / "in" / self.name, ns=(0, 17))
        scan = scanned(source, first.images)
        assert scan.changed == tuple(image.id for image in first.images)
        assert {(image.width, image.mtime_ns) for image in scan.images} == {(16, 17)}
        assert source.read(scan.images[0].id) == others["a.jpg"]  # not what was open before

    def test_garbage_is_rejected_by_name_and_costs_no_other(self, tmp_path: Path) -> None:
        for number, data in enumerate((b"", b"\0" * 600, b"words\n" * 500)):
            path = tmp_path / f"{number} {self.name}"
            path.write_bytes(data)
            scan = scanned(open_source(path))
            if scan.rejected:
                ((place, reason),) = reasons(scan).items()
                assert place == path.name and reason and str(tmp_path) not in reason
            assert scan.images == () and (scan.rejected or self.name.endswith(".tar"))
            with pytest.raises((ImageRejected, SourceError)):
                open_source(path).read(f"default/{path.name}::{self.places[0]}")

    def test_cut_off_anywhere_nothing_but_rejects_and_whole_images(self, tmp_path: Path) -> None:
        whole = self.pack(tmp_path / self.name, FILES).read_bytes()
        for cut in [*range(1, len(whole), max(1, len(whole) // 40)), len(whole) - 1]:
            path = tmp_path / self.name
            path.write_bytes(whole[:cut])
            source = open_source(path)
            for image in looked_at(source):
                try:
                    assert source.read(image.id) in FILES.values()
                except (ImageRejected, SourceError):
                    continue

    def test_flipped_bytes_never_end_a_scan(self, tmp_path: Path) -> None:
        whole = self.pack(tmp_path / self.name, FILES).read_bytes()
        random = np.random.default_rng(0)
        for _ in range(60):
            data = bytearray(whole)
            for at in random.integers(0, len(data), 8):
                data[at] = random.integers(256)
            path = tmp_path / self.name
            path.write_bytes(data)
            source = open_source(path)
            for image in looked_at(source):
                try:
                    decode(source.read(image.id))
                except (ImageRejected, SourceError, OSError):
                    continue

    @pytest.mark.parametrize(
        "place", ["", "nothing.jpg", "../a.jpg", "/etc/passwd", "-1", "00000099", "1", "%61.jpg", "/"]
    )
    def test_no_other_place_is_read(self, tmp_path: Path, place: str) -> None:
        source = self.source(tmp_path / "in")
        (tmp_path / "a.jpg").write_bytes(FILES["a.jpg"])
        with pytest.raises(SourceError):
            source.read(f"default/{self.name}::{place}")

    def test_descriptors_are_given_back(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(open_containers, "OPEN_AT_ONCE", 2)
        for number in range(6):
            self.pack(tmp_path / f"{number}{self.name}", FILES)
        gc.collect()
        before = len(list(Path("/proc/self/fd").iterdir()))
        source = reopen_source("default", str(tmp_path))
        for number in (0, 1, 2, 3, 4, 5) * 2:
            assert source.read(f"default/{number}{self.name}::{self.places[0]}") == FILES["a.jpg"]
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
        del source
        gc.collect()
        assert len(list(Path("/proc/self/fd").iterdir())) == before


class TestTar(ContainerContract):
    name, places = "all.tar", list(FILES)

    def pack(self, path: Path, files: Mapping[str, bytes]) -> Path:
        return pack_tar(path, files)


class TestZip(ContainerContract):
    name, places = "all.zip", list(FILES)

    def pack(self, path: Path, files: Mapping[str, bytes]) -> Path:
        return pack_zip(path, files)


class TestDeflatedZip(TestZip):
    def pack(self, path: Path, files: Mapping[str, bytes]) -> Path:
        return pack_zip(path, files, zipfile.ZIP_DEFLATED)


class TestParquet(ContainerContract):
    name, places = "all.parquet", [f"{row:08d}" for row in range(5)]

    def pack(self, path: Path, files: Mapping[str, bytes]) -> Path:
        return pack_parquet(path, files)


class TestArrow(TestParquet):
    name = "all.arrow"

    def pack(self, path: Path, files: Mapping[str, bytes]) -> Path:
        return pack_arrow(path, files)


class TestArrowFile(TestArrow):
    def pack(self, path: Path, files: Mapping[str, bytes]) -> Path:
        return pack_arrow(path, files, stream=False)


class TestHdf5(ContainerContract):
    name, places = "all.h5", [f"/images::{row:08d}" for row in range(5)]

    def pack(self, path: Path, files: Mapping[str, bytes]) -> Path:
        return pack_hdf5(path, files)


def test_a_folder_of_images_and_archives_is_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(FILES["a.jpg"])
    (tmp_path / "shards").mkdir()
    pack_tar(tmp_path / "shards" / "000.tar", {"x.jpg": FILES["a.jpg"], "x.json": b"{}", "x.cls": b"3"})
    pack_tar(tmp_path / "shards" / "001.TAR", {"y.jpg": FILES["a.jpg"]})
    pack_zip(tmp_path / "b.zip", {"z.png": FILES["b/c.png"], "__MACOSX/._z.png": b"junk"})
    pack_parquet(tmp_path / "c.parquet", {"p": FILES["a.jpg"]})
    pq.write_table(pa.table({"caption": ["a cat"]}), tmp_path / "captions.parquet")
    pack_hdf5(tmp_path / "depth.h5", {"p": FILES["a.jpg"]})
    (tmp_path / "old.tar.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "boxes.json.gz").write_bytes(b"\x1f\x8b")
    source = open_source(tmp_path, "mix")
    scan = scanned(source)
    assert ids(scan) == [
        "mix/a.jpg", "mix/b.zip::z.png", "mix/c.parquet::00000000", "mix/shards/000.tar::x.jpg",
        "mix/shards/001.TAR::y.jpg",
    ]  # fmt: skip
    assert list(reasons(scan)) == ["old.tar.gz"] and "unpack it" in reasons(scan)["old.tar.gz"]
    assert reasons(scanned(open_source(tmp_path / "old.tar.gz", "mix"))) == reasons(scan)  # named by itself
    assert (scan.skipped_hidden, scan.skipped_other) == (1, 5)  # ._z.png; two of 000.tar, and three files
    assert all(decode(source.read(image.id)).rgb_HW3.shape[1] == image.width for image in scan.images)


def test_a_container_that_is_a_link_out_of_the_root_is_not_opened(tmp_path: Path) -> None:
    outside = pack_tar(tmp_path / "private.tar", FILES)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "all.tar").symlink_to(outside)
    source = open_source(tmp_path / "root")
    assert reasons(scanned(source)) == {"all.tar": folder_source._LEADS_OUT}
    with pytest.raises(SourceError, match="leads out of the root"):
        source.read("default/all.tar::a.jpg")


def test_a_fifo_called_like_an_archive_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "all.tar")
    assert reasons(scanned(open_source(tmp_path))) == {"all.tar": "not a file but a FIFO"}


def test_the_systems_tar_is_read_in_all_its_formats(tmp_path: Path) -> None:
    long = "long/" + "n" * 120 + "/" + "m" * 130 + ".jpg"
    names = ["plain.jpg", "sub/a b.jpg", "caf\u00e9.jpg", long]
    for name in names:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FILES["a.jpg"])
    for kind in ("gnu", "pax", "ustar", "v7"):
        some = names if kind in ("gnu", "pax") else names[:3]
        archive = tmp_path / f"{kind}.tar"
        command = [
            "tar",
            f"--format={kind}",
            "-cf",
            str(archive),
            "-C",
            str(tmp_path / "in"),
            *(f"./{n}" for n in some),
        ]
        subprocess.run(command, check=True)
        source = open_source(archive)
        scan = scanned(source)
        assert ids(scan) == sorted(f"default/{kind}.tar::{name}" for name in some)
        assert all(source.read(image.id) == FILES["a.jpg"] for image in scan.images)


def test_arrays_of_pixels_are_the_same_pixels_in_a_file_made_of_them(tmp_path: Path) -> None:
    rgb_NHW3 = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["rows last"] = rgb_NHW3
        file["group/planes"] = rgb_NHW3.transpose(0, 3, 1, 2)
        file["one"] = rgb_NHW3[0]
        file["chunked"] = rgb_NHW3
    source = open_source(tmp_path / "all.h5")
    scan = scanned(source)
    assert ids(scan) == [
        *(f"default/all.h5::/chunked::{n:08d}" for n in range(3)),
        *(f"default/all.h5::/group/planes::{n:08d}" for n in range(3)),
        "default/all.h5::/one::00000000",
        *(f"default/all.h5::/rows last::{n:08d}" for n in range(3)),
    ]
    for image in scan.images:
        data = source.read(image.id)
        assert len(data) == image.size
        np.testing.assert_array_equal(decode(data).rgb_HW3, rgb_NHW3[int(image.id[-1])])


def test_a_matlab_file_counts_columns_first(tmp_path: Path) -> None:
    """The layout of NYU Depth V2's labelled file: images [N,3,W,H], depths and labels [N,W,H]."""
    rgb_NHW3 = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "nyu.mat", "w", userblock_size=512) as file:
        file["images"] = rgb_NHW3.transpose(0, 3, 2, 1)
        file["images"].attrs["MATLAB_class"] = np.bytes_("uint8")
        file["depths"] = np.ones((2, 30, 20), np.float32)
        file["instances"] = np.ones((2, 30, 20), np.uint8)
        file["three"] = np.ones((3, 30, 20), np.uint8)
        file["three"].attrs["MATLAB_class"] = np.bytes_("uint8")
    source = open_source(tmp_path / "nyu.mat")
    scan = scanned(source)
    assert [(image.width, image.height) for image in scan.images] == [(30, 20)] * 2
    assert (scan.rejected, scan.skipped_other) == ((), 3)
    for image, rgb_HW3 in zip(scan.images, rgb_NHW3, strict=True):
        np.testing.assert_array_equal(decode(source.read(image.id)).rgb_HW3, rgb_HW3)


def test_a_frame_with_its_channels_first_is_an_image(tmp_path: Path) -> None:
    """The layout of NYU Depth V2 as sparse-to-dense and FastDepth publish it: a file a frame, rgb [3,H,W] and depth."""
    rgb_HW3 = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "00001.h5", "w") as file:
        file["rgb"] = rgb_HW3.transpose(2, 0, 1)
        file["depth"] = np.ones((20, 30), np.float32)
        file["three depths"] = np.ones((3, 20, 30), np.float32)
    source = open_source(tmp_path / "00001.h5")
    scan = scanned(source)
    assert (ids(scan), scan.rejected, scan.skipped_other) == (["default/00001.h5::/rgb::00000000"], (), 2)
    data = source.read(scan.images[0].id)
    assert len(data) == scan.images[0].size
    np.testing.assert_array_equal(decode(data).rgb_HW3, rgb_HW3)


def test_what_is_not_in_the_hdf5_file_itself_or_has_no_white_is_refused(tmp_path: Path) -> None:
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    with h5py.File(tmp_path / "private.h5", "w") as file:
        file["images"] = pixels
    (tmp_path / "raw.bin").write_bytes(pixels.tobytes())
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["linked"] = h5py.ExternalLink("private.h5", "/images")
        file["good"] = pixels
        file["soft"] = h5py.SoftLink("/good")
        file.create_dataset("raw", pixels.shape, np.uint8, external=[(str(tmp_path / "raw.bin"), 0, pixels.nbytes)])
        layout = h5py.VirtualLayout(pixels.shape, np.uint8)
        layout[...] = h5py.VirtualSource(tmp_path / "private.h5", "images", pixels.shape)
        file.create_virtual_dataset("virtual", layout)
        file["hdr"] = np.zeros((8, 8, 3), np.float32)
        file["deep"] = np.zeros((2, 8, 8, 3), np.uint16)
        file["loop/back"] = file["/"]
    source = open_source(tmp_path / "all.h5")
    scan = scanned(source)
    assert ids(scan) == [f"default/all.h5::/good::{n:08d}" for n in range(2)]
    found = {place.partition("::")[2]: reason for place, reason in reasons(scan).items()}
    assert set(found) == {"/raw", "/virtual", "/hdr", "/deep"}
    assert "other files" in found["/raw"] and "other files" in found["/virtual"]
    assert "no agreed white" in found["/hdr"] and "uint16" in found["/deep"]
    assert scan.skipped_other == 2  # the two links
    for name in ("linked", "soft", "raw", "virtual", "hdr"):
        with pytest.raises(SourceError):
            source.read(f"default/all.h5::/{name}::00000000")


@pytest.mark.parametrize("kind", ["tar", "zip", "parquet", "h5"])
def test_real_photos_come_out_as_they_are(kind: str, tmp_path: Path) -> None:
    if not PHOTOS.is_dir():
        pytest.skip("no ../shared/photos")
    files = {path.name: path.read_bytes() for path in sorted(PHOTOS.iterdir())}
    pack = {"tar": pack_tar, "zip": pack_zip, "parquet": pack_parquet, "h5": pack_hdf5}[kind]
    source = open_source(pack(tmp_path / f"all.{kind}", files))
    plain, scan = scanned(open_source(PHOTOS)), scanned(source)
    assert [(one.size, one.width, one.height) for one in scan.images] == [
        (one.size, one.width, one.height) for one in plain.images
    ]
    assert [source.read(image.id) for image in scan.images] == list(files.values())


def test_pillow_reads_the_ppm_that_is_made(tmp_path: Path) -> None:
    rgb_HW3 = np.asarray(photo(31, 17))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = rgb_HW3
    data = open_source(tmp_path / "a.h5").read("default/a.h5::/x::00000000")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), rgb_HW3)
