"""The page of a report in a browser: what it shows is what the store has, and what a loader would mask."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import OPENED, Page
from reported import HOSTILE, PLAIN, tinted
from storemaker import Picture, make_store

import depthsieve
from depthsieve.images import colours
from depthsieve.report.maps import Maps
from depthsieve.report.page import shown
from depthsieve.store import Store


@pytest.mark.parametrize("scope", ["image", "dataset"])
def test_the_mask_on_the_canvas_is_the_loaders(browser: Any, page: Path, made: Store, scope: str) -> None:
    with Page(browser, page) as opened:
        for name in PLAIN[:2]:
            opened.open(Path(name).name)
            for drop in (0, 5, 10.5, 29, 77.5, 99):
                told = opened.drop(drop, scope)
                dataset = depthsieve.PseudoLabelDataset(made, images=False, drop=drop / 100, scope=scope)
                sample = dataset[dataset.ids.index(f"default/{name}")]
                valid_HW, mask_HW = (sample["reliability"] > 0).numpy(), sample["mask"].numpy()
                np.testing.assert_array_equal(tinted(opened, "canvas-mask-0"), valid_HW & ~mask_HW)
                masked = int((valid_HW & ~mask_HW).sum())
                assert told.startswith(
                    f"{100 * masked / valid_HW.sum():.1f}% of the valid pixels left out: {masked:,} "
                )
            opened.page.keyboard.press("Escape")


def test_maps_come_without_loss(browser: Any, page: Path, made: Store) -> None:
    label = made.label(f"default/{PLAIN[0]}")
    expected = Maps.of(label.depth, label.reliability, label.quantity).pictures()
    with Page(browser, page) as opened:
        opened.open(Path(PLAIN[0]).name)
        for canvas, rgb_HW3 in zip(("canvas-depth-0", "canvas-reliability-0"), expected, strict=True):
            height, width, rgba = opened.pixels(canvas)
            np.testing.assert_array_equal(np.frombuffer(rgba, np.uint8).reshape(height, width, 4)[..., :3], rgb_HW3)


def test_cards_are_sorted_searched_and_filtered(browser: Any, page: Path, made: Store) -> None:
    by_reliability = sorted(made, key=lambda one: np.mean(made.label(one).reliability[made.label(one).reliability > 0]))
    names = [shown(one.partition("/")[2]) for one in by_reliability]
    without = {"plain/broken.png", "<b>refused</b>.png"}
    with Page(browser, page) as opened:
        assert opened.cards()[: len(names)] == names
        assert set(opened.cards()[len(names) :]) == without, "images without a label come last"
        opened.page.locator("#order").select_option("best")
        assert opened.cards()[: len(names)] == names[::-1]
        opened.page.locator("#order").select_option("id")
        assert opened.cards() == [
            shown(one.partition("/")[2]) for one in sorted([*made, *(f"default/{x}" for x in without)])
        ]
        opened.page.locator("#order").select_option("short_side")
        assert opened.page.locator("#cards .about").first.locator("span").text_content() == "short_side 56"
        opened.page.locator("#order").select_option("random")
        assert sorted(opened.cards()[:99]) == sorted([*names, *without])

        opened.page.locator("#tool-find").fill("PLAIN/")
        assert set(opened.cards()) == {*PLAIN, "plain/broken.png"}
        opened.page.locator("#kind").select_option("failed")
        assert opened.cards() == ["plain/broken.png"]
        assert "made up" in str(opened.page.locator("#cards .frame").text_content())
        opened.page.locator("#tool-find").fill("")
        assert set(opened.cards()) == without
        opened.page.locator("#kind").select_option("labelled")
        assert set(opened.cards()) == set(names)
        limit = np.mean(
            [np.mean(made.label(one).reliability[made.label(one).reliability > 0]) for one in by_reliability[3:5]]
        )
        opened.page.locator("#column").select_option("reliability")
        opened.page.locator("#tool-most").fill(f"{limit:.3f}")
        assert set(opened.cards()) == set(names[:4])
        opened.page.locator("#tool-least").fill("1e9")
        assert opened.cards() == []
        assert opened.found() == "No image fits."


def test_the_keyboard_opens_turns_closes_and_comes_back(browser: Any, page: Path) -> None:
    with Page(browser, page) as opened:
        keys = opened.page.keyboard
        first, second = opened.cards()[:2]
        opened.page.locator("#cards button.tile").first.focus()
        keys.press("Enter")
        opened.page.locator(OPENED).wait_for()
        assert str(opened.page.locator("#viewer-title").text_content()).endswith(first)
        opened.page.locator("#drop").focus()
        keys.press("ArrowRight")
        assert opened.page.locator("#drop-number").input_value() == "10.5"
        opened.page.locator("#close").focus()
        keys.press("ArrowRight")
        opened.page.locator("#viewer-title", has_text=second).wait_for()
        opened.page.locator(OPENED).wait_for()
        keys.press("Escape")
        opened.page.locator("#viewer").wait_for(state="hidden")
        focused = "document.activeElement.querySelector('.about b').textContent"
        assert opened.page.evaluate(focused) == second, "focus comes back to the card of what was shown last"


def test_hostile_names_are_text_and_nothing_else(browser: Any, page: Path, made: Store) -> None:
    with Page(browser, page) as opened:
        opened.page.locator("#order").select_option("id")
        names = opened.cards()
        assert set(names) > {shown(one.partition("/")[2]) for one in made} and len(made) >= len(HOSTILE)
        for place in range(opened.page.locator("#cards button.tile").count()):
            opened.page.locator("#cards button.tile").nth(place).click()
            opened.page.locator(OPENED).wait_for()
            opened.page.keyboard.press("Escape")
        made_of = "[...document.querySelectorAll('*')].map(one => one.tagName.toLowerCase())"
        tags = opened.page.evaluate(made_of)
        assert tags.count("img") == opened.page.locator("#cards .crop img").count()
        assert "\n" not in "".join(names)
        assert opened.page.evaluate("document.querySelectorAll('script').length") == 2
        assert "b" not in opened.page.evaluate(
            "[...document.querySelectorAll('td *')].map(one => one.tagName.toLowerCase())"
        )


@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 390)], ids=["light", "dark, on a phone"])
def test_axe_finds_no_serious_fault(browser: Any, page: Path, dark: bool, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    with Page(browser, page, width=width, dark=dark) as opened:
        for what in ("gallery", "viewer"):
            if what == "viewer":
                opened.open(Path(PLAIN[0]).name)
            found = axe.run(opened.page, options={"preload": False}).response["violations"]
            assert [
                (one["id"], [node["html"][:120] for node in one["nodes"]][:3])
                for one in found
                if one["impact"] in ("serious", "critical")
            ] == []


def test_a_phone_scrolls_in_one_direction(browser: Any, page: Path) -> None:
    with Page(browser, page, width=360, height=740) as opened:
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 360
        opened.open(Path(PLAIN[0]).name)
        assert opened.page.evaluate("document.getElementById('viewer').scrollWidth") <= 360


def test_thumbnails_load_when_they_come_near(browser: Any, page: Path) -> None:
    with Page(browser, page) as opened:
        assert set(opened.page.eval_on_selector_all("#cards img", "all => all.map(one => one.loading)")) == {"lazy"}
        opened.page.locator("#cards img").first.evaluate("one => one.decode()")
        assert opened.page.locator("#cards img").first.evaluate("one => one.naturalHeight") > 0


def test_thousands_of_rows_are_paged(browser: Any, page: Path, tmp_path: Path) -> None:
    """The script of the page, with 5,000 made-up rows in place of the store's nine."""
    import json
    import re
    import shutil

    folder = shutil.copytree(page.parent, tmp_path / "many")
    script = next(folder.glob("files-*/gallery.js"))
    rows = json.loads(re.fullmatch(r"depthsieve\.start\((.*)\);\n", script.read_text(), re.DOTALL)[1])  # type: ignore[index]
    count = 5000
    rows |= {
        "shown": count,
        "images": 100_000,
        "ids": ["default/new\nline \u2028 \u202egnp.jpg", *(f"default/{n:05}.jpg" for n in range(1, count))],
        "states": ["labelled"] * count,
        "reasons": [None] * count,
        "sizes": [[4, 3, 16]] * count,
        "numbers": {"reliability": [(n * 7919) % count for n in range(count)]},
    }
    script.write_text(f"depthsieve.start({json.dumps(rows)});\n")
    with Page(browser, folder / "index.html") as opened:
        opened.wrong = []  # pictures of rows that are made up are not there

        def values() -> list[int]:
            return [int(text.split()[1]) for text in opened.page.locator("#cards .about span").all_text_contents()]

        assert opened.found() == "1 to 48 of 5,000 images"
        assert values() == list(range(48))
        assert opened.cards()[0] == "new\\nline \\u2028 \\u202egnp.jpg" == shown("new\nline \u2028 \u202egnp.jpg")
        opened.page.get_by_role("button", name="Next page").click()
        assert values() == list(range(48, 96))
        opened.page.locator("#order").select_option("best")
        assert values() == list(range(4999, 4999 - 48, -1))
        assert opened.found() == "1 to 48 of 5,000 images", "another order begins at the first page"
        opened.page.locator("#tool-find").fill("/0049")
        assert opened.found() == "1 to 10 of 10 images"
        assert opened.page.locator("#pages button").count() == 0
        opened.page.locator("#tool-find").fill("none of these")
        assert opened.found().startswith("No image fits. The gallery has 5,000 of 100,000 images")
        opened.wrong = [one for one in opened.wrong if "ERR_FILE_NOT_FOUND" not in one]


def test_one_code_everywhere_is_drawn_mid_scale_and_said(browser: Any, tmp_path: Path) -> None:
    codes_HW = np.full((20, 30), 255, np.uint8)
    store = make_store(tmp_path, [Picture("flat.png", (40, 60), (20, 30), reliability_HW=codes_HW)])
    depthsieve.report_labels(store, tmp_path / "out", progress=False)
    with Page(browser, tmp_path / "out" / "index.html") as opened:
        opened.open("flat.png")
        height, width, rgba = opened.pixels("canvas-reliability-0")
        drawn_HW3 = np.frombuffer(rgba, np.uint8).reshape(height, width, 4)[..., :3]
        np.testing.assert_array_equal(drawn_HW3, np.broadcast_to(colours.VIRIDIS_256[128], drawn_HW3.shape))
        assert "code 255 everywhere, expected error under 0.1%" in str(
            opened.page.locator("#figure-reliability-0").text_content()
        )
        assert "255 everywhere" in str(opened.page.locator("#codes").text_content())
