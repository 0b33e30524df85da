"""What a header says: orientation, focal length, and limits on what is read and allocated."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from decoding import FORMATS_WITH_EXIF, header_of, rejection, with_exif
from hostile import chunk, encoded, exif, photo, png

from depthsieve.core.errors import ImageRejected
from depthsieve.images import decode as images
from depthsieve.images import headers as image_headers
from depthsieve.images.decode import ImageHeader, decode, read_header


@pytest.mark.parametrize("kind", FORMATS_WITH_EXIF)
@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_an_orientation_that_means_nothing_is_upright(kind: str, orientation: int) -> None:
    header = header_of(with_exif(photo(), kind, orientation))
    assert (header.width, header.height, header.orientation) == (64, 48, 1)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x01\0\0\0\x06\0\0\0",  # orientation as text
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x02\0\0\0\x06\0\x06\0",  # two orientations
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0",  # a directory in itself
    ],
)
def test_garbage_exif_is_upright_and_costs_nothing(block: bytes) -> None:
    data = encoded(photo(), "JPEG", exif=block) if block else encoded(photo(), "JPEG")
    assert header_of(data) == ImageHeader(64, 48, 1, 0.0)
    assert decode(data).rgb_HW3.shape == (48, 64, 3)


def test_xmp_does_not_turn_an_image() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    for data in (encoded(photo(), "JPEG", xmp=xmp), encoded(photo(), "TIFF", tiffinfo={700: xmp})):
        assert decode(data).header == header_of(data) == ImageHeader(64, 48, 1, 0.0)


def test_focal_length_relates_to_the_diagonal_of_the_source() -> None:
    header = header_of(with_exif(photo(400, 300), "JPEG", 6, focal_35mm=28))
    assert (header.width, header.height) == (300, 400)
    assert header.focal_px == pytest.approx(28 / 43.27 * 500)
    assert header_of(with_exif(photo(), "JPEG", 1, focal_35mm=0)).focal_px == 0.0


def test_exif_of_either_byte_order_is_read() -> None:
    for order, mark in (("<", b"II*\0"), (">", b"MM\0*")):
        first = struct.pack(order + "IH HHIHH HHII I", 8, 2, 0x0112, 3, 1, 8, 0, 0x8769, 4, 1, 38, 0)
        second = struct.pack(order + "H HHIHH I", 1, 0xA405, 3, 1, 35, 0, 0)
        header = header_of(encoded(photo(40, 30), "JPEG", exif=b"Exif\0\0" + mark + first + second))
        assert header == ImageHeader(30, 40, 8, pytest.approx(35 / 43.27 * 50))


def test_the_size_is_checked_before_anything_is_allocated() -> None:
    declared = png(100_000, 100_000, 8, 2, b"")
    tracemalloc.start()
    for read in (header_of, decode):
        with pytest.raises(
            ImageRejected, match=r"^declares 100000x100000 pixels, more than the 200 megapixels allowed$"
        ):
            read(declared)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_the_limit_on_the_size_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_headers, "MAX_PIXELS", 64 * 48)
    assert decode(encoded(photo(64, 48), "PNG")).rgb_HW3.shape == (48, 64, 3)
    assert "declares 64x49" in rejection(encoded(photo(64, 49), "PNG"))


def test_a_header_may_not_be_endless() -> None:
    class Endless(io.RawIOBase):
        """A PNG whose second chunk goes on and on."""

        start = png(8, 8, 8, 2, b"")[:33] + struct.pack(">I", 2**31 - 1) + b"zzZz"
        at = given = 0

        def read(self, size: int = -1) -> bytes:
            data = (self.start[self.at : self.at + size]).ljust(size, b"\0")
            self.at, self.given = self.at + size, self.given + size
            return data

        def seek(self, offset: int, whence: int = 0) -> int:
            self.at = offset
            return offset

        def tell(self) -> int:
            return self.at

    endless = Endless()
    with pytest.raises(ImageRejected, match="its header is longer than 16 MiB"):
        read_header(endless)  # type: ignore[arg-type]
    assert endless.given <= images.MAX_HEADER_BYTES + 100


def test_the_files_own_errors_pass_through() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 64:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(OSError, match="Input/output error") as caught:
        read_header(Failing(encoded(photo(), "JPEG")))
    assert not isinstance(caught.value, ImageRejected)


def test_text_and_profiles_of_a_png_cost_it_nothing() -> None:
    """Image generators put megabytes of text before the pixels, and Pillow refuses what unpacks to more than 1 MiB."""
    picture, profile = photo(), np.random.default_rng(0).bytes(2_500_000)
    whole = encoded(picture, "PNG", exif=exif(6, 28))
    texts = {
        "zTXt": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b'{"a":1}' * 450_000)),
        "iTXt": chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b" " * 3_000_000)),
        "tEXt": chunk(b"tEXt", b"a\0" + b" " * (images.MAX_HEADER_BYTES + 1)),
        "iCCP": chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile)),
        "broken": chunk(b"zTXt", b"no text\0\0not packed"),
    }
    expected = decode(whole)
    assert (expected.header.orientation, expected.header.width) == (6, 48)
    end = len(whole) - 12  # behind the pixels too
    for name, text in texts.items():
        for data in (whole[:33] + text + whole[33:], whole[:end] + text + whole[end:]):
            decoded = decode(data)
            assert np.array_equal(decoded.rgb_HW3, expected.rgb_HW3), name
            assert decoded.header == header_of(data) == expected.header, name
