"""Names on pictures: any script where the system has a font for it, else escapes, and never boxes."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from depthsieve.images.lettering import Lettering


def drawn(letters: Lettering, text: str) -> NDArray[np.uint8]:
    picture = Image.new("L", (300, 40), "white")
    letters.draw(ImageDraw.Draw(picture), (4, 8), letters.legible(text), "black")
    return np.asarray(picture)


@pytest.fixture
def none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lettering:
    """On a system without fontconfig."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return Lettering(14)


OTHERS = ("\u00e4", "\u5199", "\u0639")


def system_font(character: str) -> ImageFont.FreeTypeFont:
    """The font of this system for a character; the test skips where there is none."""
    if shutil.which("fc-match") is None:
        pytest.skip("needs fontconfig")
    call = ["fc-match", "--format", "%{file}", f":charset={ord(character):x}"]
    font = ImageFont.truetype(subprocess.run(call, capture_output=True, text=True, check=True).stdout, 14)
    if bytes(font.getmask(character)) == bytes(font.getmask("\U0010ffff")):
        pytest.skip(f"no font here has {character!r}")
    return font


def test_without_a_font_characters_are_escaped(none: Lettering) -> None:
    assert none.legible("a/m\u00fcnchen \u5199\u771f.jpg") == "a/m\\xfcnchen \\u5199\\u771f.jpg"
    assert none.legible("mu\u0308.jpg") == "m\\xfc.jpg"
    assert none.legible("a\n\udcff") == "a\\n\\udcff"


def test_fontconfig_that_knows_no_font_leaves_escapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fc-match").write_text("#!/bin/sh\n/bin/echo trouble >&2\n/bin/echo /no/such/font.ttf\n")
    (tmp_path / "fc-match").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Lettering(14).legible("\u5199") == "\\u5199"
    assert capfd.readouterr().err == ""


def test_english_is_drawn_as_pillow_draws_it(none: Lettering) -> None:
    picture = Image.new("L", (300, 40), "white")
    ImageDraw.Draw(picture).text((4, 8), "default/a.jpg   9.8% masked", "black", ImageFont.load_default(14))
    assert (drawn(none, "default/a.jpg   9.8% masked") == np.asarray(picture)).all()


@pytest.mark.parametrize("character", OTHERS)
def test_other_scripts_are_drawn_with_a_font_of_the_system(character: str) -> None:
    font, letters = system_font(character), Lettering(14)
    assert letters.legible(character) == character
    left, _, right, _ = font.getmask(character).getbbox()
    columns_W = (drawn(letters, character) < 255).any(axis=0)
    assert np.ptp(np.flatnonzero(columns_W)) + 1 == right - left
    assert letters.length(f"a{character}b") == letters.length("a") + int(font.getlength(character)) + letters.length(
        "b"
    )


def test_letters_and_their_accents_are_composed() -> None:
    system_font("\u00fc")
    assert Lettering(14).legible("mu\u0308nchen.jpg") == "m\u00fcnchen.jpg"


def test_text_that_is_too_wide_loses_its_middle(none: Lettering) -> None:
    title = "source/" + "very long folder/" * 60 + "image.png   9.8% masked"
    short = none.shortened(title, 500)
    assert none.length(short) <= 500 < none.length(short) + 20
    assert short.startswith("source/very")
    assert short.endswith("image.png   9.8% masked")
    assert none.shortened("short", 500) == "short"
