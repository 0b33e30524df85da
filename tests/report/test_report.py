"""Parts of pages: they escape what they are given, need nothing from elsewhere, and draw values where they are."""

import re

import numpy as np
import pytest
from PIL import Image

from depthsieve.report import page

NASTY = "<script>alert(1)</script> & \"quoted\" 'single'"


def test_page_parts_escape_what_they_are_given() -> None:
    pixel = np.zeros((1, 1, 3), np.uint8)
    line = page.Line("method", NASTY, np.array([0.0, 0.5]), np.array([0.2, 0.1]))
    for part in (
        page.page(NASTY, ""),
        page.table([NASTY], [[NASTY]]),
        page.cards([(NASTY, NASTY)]),
        page.image(pixel, NASTY),
        page.panels(NASTY, [(NASTY, pixel)]),
        page.plot([line], NASTY, NASTY, 0.1),
    ):
        assert "<script>" not in part
        assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;quoted&quot; &#x27;single&#x27;" in part


def test_a_page_needs_nothing_from_elsewhere() -> None:
    text = page.page("title", page.image(np.zeros((2, 3, 3), np.uint8), "text"))
    assert re.findall(r'src="([^"]{0,22})', text) == ["data:image/png;base64,"]
    assert not re.search(r"https?:|@import|url\(|<script|<link", text)
    assert "prefers-color-scheme: dark" in text
    assert '<meta name="viewport" content="width=device-width' in text


def test_an_image_in_the_page_keeps_its_pixels() -> None:
    import base64
    import io

    rgb_HW3 = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    text = page.image(rgb_HW3, "noise")
    data = base64.b64decode(re.findall(r"base64,([^\"]+)", text)[0])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), rgb_HW3)
    assert 'width="7" height="5"' in text


def test_plot_draws_each_line_at_its_values() -> None:
    at = np.array([0.0, 0.25, 0.5])
    lines = [
        page.Line("method", "ours", at, np.array([0.3, 0.2, 0.1])),
        page.Line("random", "chance", at, np.array([0.3, 0.3, 0.3])),
    ]
    text = page.plot(lines, "dropped", "error", 0.1)
    drawn = re.findall(r'<polyline class="(\w+)" points="([^"]+)"', text)
    assert [kind for kind, _ in drawn] == ["method", "method", "random", "random"], "each line, then its key"
    ours = np.array([point.split(",") for point in drawn[0][1].split()], dtype=float)
    chance = np.array([point.split(",") for point in drawn[2][1].split()], dtype=float)
    assert ours[0].tolist() == chance[0].tolist()
    assert np.diff(ours[:, 0]).tolist() == pytest.approx([ours[1, 0] - ours[0, 0]] * 2, abs=0.2)
    assert np.diff(ours[:, 1]).min() > 0, "less error is lower on the page"
    assert len(set(chance[:, 1])) == 1
    ticks = {text: float(y) for y, text in re.findall(r'y="([\d.]+)" text-anchor="end">([\d.]+)<', text)}
    assert ticks["0.3"] - 4 == pytest.approx(ours[0, 1], abs=0.1)
    assert ticks["0.1"] - 4 == pytest.approx(ours[2, 1], abs=0.1)
    assert re.findall(r">(\d+%)<", text) == ["0%", "10%", "20%", "30%", "40%", "50%"]
    for name in ("ours", "chance", "dropped", "error"):
        assert f">{name}</text>" in text


@pytest.mark.parametrize(("top", "step"), [(0.3, 0.05), (0.277, 0.05), (6.0, 1.0), (0.001, 0.0002), (1e9, 1e9)])
def test_grid_lines_stand_at_round_numbers(top: float, step: float) -> None:
    assert page._nice_step(top) == pytest.approx(step)
