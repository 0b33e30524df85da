"""Damaged files: refused with a reason, whatever is wrong with them, and in silence."""

import io
import random
import re

import numpy as np
import pytest
from decoding import header_of, rejection
from hostile import encoded, exif, photo
from PIL import Image

from depthsieve.core.errors import ImageRejected
from depthsieve.images import headers as image_headers
from depthsieve.images.decode import decode


def test_damaged_files_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    group4 = bytearray(encoded(photo(mode="1"), "TIFF", compression="group4"))
    group4[len(group4) // 2 :] = b"\xa5" * (len(group4) - len(group4) // 2)
    jpeg = bytearray(encoded(photo(), "JPEG"))
    jpeg[len(jpeg) // 2 :: 3] = b"\x55" * len(jpeg[len(jpeg) // 2 :: 3])
    lzw = encoded(photo(), "TIFF", compression="tiff_lzw").replace(b"\x80", b"\xff")
    for data in (bytes(group4), bytes(jpeg), lzw):
        try:
            decode(data)
        except ImageRejected:
            continue
    assert capfd.readouterr() == ("", "")


def seeds() -> list[bytes]:
    plain = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF")
    return [
        *(encoded(photo(24, 16), kind) for kind in plain),
        encoded(photo(24, 16, "P"), "GIF"),
        encoded(photo(24, 16, "CMYK"), "JPEG", exif=exif(6)),
        encoded(photo(24, 16, "RGBA"), "PNG", exif=exif(6)),
        encoded(photo(24, 16), "PNG", save_all=True, append_images=[photo(24, 16).rotate(180)]),
        encoded(photo(24, 16), "TIFF", compression="jpeg"),
    ]


def test_spoilt_bytes_give_an_image_or_a_refusal_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_headers, "MAX_PIXELS", 1_000_000)  # a large declared size only costs time here
    rng = random.Random(0)
    good = seeds()
    outcomes = {"image": 0, "refused": 0}
    for _ in range(1500):
        data = bytearray(rng.choice(good))
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        for _ in range(rng.choice((0, 1, 3, 10)) if data else 0):
            data[rng.randrange(min(len(data), rng.choice((40, 100_000))))] = rng.choice((0, 255, rng.randrange(256)))
        try:
            decoded = decode(bytes(data))
        except ImageRejected as error:
            outcomes["refused"] += 1
            reason = str(error)
            assert reason and "\n" not in reason and " at 0x" not in reason
        else:
            outcomes["image"] += 1
            assert decoded.rgb_HW3.shape == (decoded.header.height, decoded.header.width, 3)
            assert decoded.header == header_of(bytes(data))
    assert min(outcomes.values()) > 100, outcomes


def test_every_cut_of_a_file_is_refused() -> None:
    """Whatever is missing from the end of the pixels, no half image gets a label."""
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "PPM"):
        data = encoded(photo(24, 16), kind)
        for length in (0, 1, 8, 30, len(data) // 4, len(data) // 2, len(data) - 40):
            reason = rejection(data[:length])
            assert length < 30 or "truncated" in reason, (kind, length, reason)


def jpegs() -> dict[str, bytes]:
    """The same picture in the ways in which JPEGs are written."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8))
    picture = picture.resize((256, 192), Image.Resampling.BICUBIC)
    return {
        "plain": encoded(picture, "JPEG"),
        "4:4:4": encoded(picture, "JPEG", subsampling=0, quality=95),
        "progressive": encoded(picture, "JPEG", progressive=True),
        "restarts": encoded(picture, "JPEG", restart_marker_rows=1),
        "progressive restarts": encoded(picture, "JPEG", progressive=True, restart_marker_blocks=5),
        "grey": encoded(picture.convert("L"), "JPEG"),
        "CMYK": encoded(picture.convert("CMYK"), "JPEG"),
        "RGB": encoded(picture, "JPEG", keep_rgb=True),
    }


@pytest.mark.parametrize("kind", jpegs())
def test_a_jpeg_whose_data_end_early_or_are_overwritten_is_refused(kind: str) -> None:
    """libjpeg makes the rest up and only warns; Pillow says nothing. (Bytes that happen to fit cannot be told.)"""
    whole = jpegs()[kind]
    start, end = whole.index(b"\xff\xda") + 14, len(whole) - 2
    third, half = start + (end - start) // 3, (start + end) // 2
    noise = bytes(random.Random(1).choices(range(255), k=600))  # no markers
    spoilt = {
        "cut": whole[:third] + b"\xff\xd9",
        "a gap": whole[:third] + whole[third + 600 :],
        "overwritten": whole[:half] + noise + whole[half + 600 :],
    }
    assert decode(whole).rgb_HW3.shape == (192, 256, 3)
    for how, data in spoilt.items():
        reason = rejection(data)
        assert reason.startswith(("damaged JPEG: its pixel data ", "truncated JPEG")), (how, reason)
    assert rejection(spoilt["cut"]).startswith("damaged JPEG: its pixel data are cut short or overwritten (")


@pytest.mark.parametrize("kind", jpegs())
@pytest.mark.parametrize(
    "behind", [b"\0" * 500, b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 8, b"a second picture"], ids=str
)
def test_what_follows_a_whole_jpeg_does_not_matter(kind: str, behind: bytes) -> None:
    """Phones put a film, or another picture, behind the first one."""
    whole = jpegs()[kind]
    follows = jpegs()["plain"] if behind == b"a second picture" else behind
    assert np.array_equal(decode(whole + follows).rgb_HW3, decode(whole).rgb_HW3)


def test_data_padded_to_a_whole_word_are_whole() -> None:
    whole = jpegs()["plain"]
    assert np.array_equal(decode(whole[:-2] + b"\0" * 7 + whole[-2:]).rgb_HW3, decode(whole).rgb_HW3)
    reason = rejection(whole[:-2] + b"\0" * 300 + whole[-2:])
    assert re.fullmatch("damaged JPEG: its pixel data do not fit its size, [0-9]+ bytes are left over", reason)


def test_jpegs_within_a_tiff_are_held_to_the_same() -> None:
    picture = Image.open(io.BytesIO(jpegs()["plain"]))
    data = bytearray(encoded(picture, "TIFF", compression="jpeg", strip_size=8192))
    assert decode(bytes(data)).rgb_HW3.shape == (192, 256, 3)
    offset = Image.open(io.BytesIO(data)).tag_v2[273][1]  # type: ignore[attr-defined]
    data[offset + 200 : offset + 400] = b"\x55" * 200
    assert rejection(bytes(data)).startswith("damaged TIFF: its pixel data ")
