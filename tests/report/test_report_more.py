"""What a report can show besides a store: its evaluation, what curation dropped, and another store."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import Page
from reported import gallery, tinted
from storemaker import Picture, make_store

import depthsieve
from depthsieve.core.errors import LoaderError, UsageError
from depthsieve.curation.funnel import Step
from depthsieve.curation.subset import LEFT_OUT, read_dropped
from depthsieve.report.compared import short_names
from depthsieve.report.write import report_labels
from depthsieve.store import Store

COUNT = 12


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Labels of twelve images."""
    pictures = [Picture(f"{n:02}.png", (56, 84), (28, 42)) for n in range(COUNT)]
    return make_store(tmp_path_factory.mktemp("first"), pictures)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Other labels, of another shape, of ten of those and one that the first does not have."""
    names = [*(f"{n:02}.png" for n in range(COUNT - 1, 1, -1)), "another.png"]
    return make_store(tmp_path_factory.mktemp("second"), [Picture(name, (56, 84), (42, 56)) for name in names])


@pytest.fixture(scope="module")
def evaluation(first: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the first store, against depth that is off by more the higher the image's number."""
    folder = tmp_path_factory.mktemp("truth")
    random = np.random.default_rng(0)
    for number, image_id in enumerate(first):
        label_HW = first.label(image_id).depth
        noise_HW = np.exp(random.normal(0, 0.02 * (number + 1), label_HW.shape))
        np.save(folder / f"{Path(image_id).stem}.npy", (10 * noise_HW / (label_HW + 1)).astype(np.float32))
    out = folder / "result"
    depthsieve.evaluate_labels(first, folder, out=out, progress=False)
    return out


@pytest.fixture(scope="module")
def subset(first: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What curation keeps of the first store: the most reliable."""
    path = tmp_path_factory.mktemp("subset") / "subset.parquet"
    depthsieve.curate(first, path, where="id <> 'default/00.png'", min_reliability=120, progress=False)
    return path


def test_the_gallery_sorts_by_the_error_of_images(first: Store, evaluation: Path, tmp_path: Path) -> None:
    report_labels(first, tmp_path / "out", evaluation=evaluation, progress=False)
    body, text = json.loads((evaluation / "evaluation.json").read_text()), (tmp_path / "out" / "index.html").read_text()
    rows = gallery(tmp_path / "out")
    scores = {one["id"]: one for one in body["images"]}
    for name in ("abs_rel", "delta1", "aurg_abs_rel"):
        assert rows["numbers"][name] == pytest.approx([scores[one][name] for one in rows["ids"]], rel=1e-4)
    assert f"<td>AbsRel</td><td>{body['mean']['abs_rel']:.4f}</td>" in text
    assert f"<td>AUSE of the label error</td><td>{body['mean']['ause_label_error']:.4f}</td>" in text
    for name, error in (("AbsRel", "abs_rel"), ("label error", "label_error")):
        row = next(row for row in body["kept"][error] if row["dropped"] == 0.1)
        shares = f"{row['method'] / row['random']:.1%} ({row['oracle'] / row['random']:.1%})"
        assert f"<td>{name} left after dropping 10% (the limit)</td><td>{shares}</td>" in text
        cells = "".join(f"<td>{row[one]:.4f}</td>" for one in ("method", "random", "oracle"))
        assert f"{name} after dropping</th>" in text and f"<td>10%</td>{cells}" in text
    drawn = re.findall(r'<polyline class="(\w+)" points="([^"]+)"', text)
    assert [kind for kind, _ in drawn[::2]] == ["random", "method", "oracle"]
    assert len(drawn[2][1].split()) == 26, "steps up to a drop of a half"


def test_an_evaluation_of_other_images_is_refused(second: Store, evaluation: Path, tmp_path: Path) -> None:
    other = make_store(tmp_path, [Picture("elsewhere.png", (56, 84), (28, 42))])
    with pytest.raises(UsageError, match=r"the evaluation has no image of .*labels; evaluate that store"):
        report_labels(other, tmp_path / "out", evaluation=evaluation, progress=False)
    with pytest.raises(UsageError, match=r"there is no .*evaluation\.json; `depthsieve evaluate STORE -o DIR`"):
        report_labels(other, tmp_path / "out", evaluation=tmp_path, progress=False)
    (tmp_path / "evaluation.json").write_text('{"curves": {"abs_rel": {}}}')
    with pytest.raises(UsageError, match=r"evaluation\.json is no result of .*it has no 'ground_truth'"):
        report_labels(other, tmp_path / "out", evaluation=tmp_path, progress=False)
    summary = report_labels(second, tmp_path / "out", evaluation=evaluation, progress=False)
    assert len(summary.notes) == 1 and summary.notes[0].startswith("2 images of the evaluation are not in ")


def test_a_subset_file_tells_its_funnel(subset: Path, tmp_path: Path) -> None:
    rows = pq.read_table(subset).to_pylist()
    cut = sum(row["step"] == "min-reliability 120" for row in rows)
    assert 0 < cut < COUNT - 1
    dropped = read_dropped(subset)
    assert dropped.steps() == (Step("where", COUNT, 1), Step("min-reliability 120", COUNT - 1, cut))
    assert dropped.kept == COUNT - 1 - cut
    bare = tmp_path / "bare.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "keep": [True, False]}), bare)
    assert read_dropped(bare).steps() == (Step(LEFT_OUT, 2, 1),)


def test_steps_come_in_the_order_of_curation(tmp_path: Path) -> None:
    names = ["max 20", "labelled", "balance 3, cap 4", "max-sky 0.3", "near-duplicates 0.9", "where", "max-dark 0.5"]
    table = {"id": names, "keep": [False] * 7, "step": names, "reason": ["why"] * 7}
    pq.write_table(pa.table(table), tmp_path / "subset.parquet")
    ordered = [step.name for step in read_dropped(tmp_path / "subset.parquet").steps()]
    assert ordered == [names[n] for n in (1, 5, 6, 3, 4, 2, 0)]


def test_what_was_dropped_is_filtered_and_told(browser: Any, first: Store, subset: Path, tmp_path: Path) -> None:
    page = Path(report_labels(first, tmp_path / "out", subset=subset, progress=False).page)
    rows = pq.read_table(subset).to_pylist()
    by_step = {
        name: {row["id"][8:] for row in rows if row["step"] == name} for name in ("", "where", "min-reliability 120")
    }
    with Page(browser, page) as opened:
        for kind, expected in (
            ("kept", by_step[""]),
            ("dropped", by_step["where"] | by_step["min-reliability 120"]),
            ("step:where", by_step["where"]),
        ):
            opened.page.locator("#kind").select_option(kind)
            assert set(opened.cards()) == expected
        opened.open("00.png")
        assert "where: not (id <> 'default/00.png')" in str(opened.page.locator("#problems").text_content())
        for drop in (10, 31.5):
            opened.drop(drop, "dataset")
            dataset = depthsieve.PseudoLabelDataset(
                first, images=False, subset=subset, drop=drop / 100, scope="dataset"
            )
            code = int(dataset._samples.thresholds.of(np.array([0]))[0])
            reliability_HW = first.label("default/00.png").reliability
            np.testing.assert_array_equal(
                tinted(opened, "canvas-mask-0"), (reliability_HW > 0) & (reliability_HW < code)
            )
        opened.page.keyboard.press("Escape")
        summary = opened.page.locator("summary", has_text="min-reliability 120")
        assert str(summary.text_content()).startswith(
            f"min-reliability 120: {len(by_step['min-reliability 120'])} dropped"
        )


def test_a_subset_of_another_store_is_refused(second: Store, subset: Path, tmp_path: Path) -> None:
    with pytest.raises(LoaderError, match="subset"):
        report_labels(second, tmp_path / "out", subset=subset, progress=False)


def test_two_stores_stand_side_by_side(
    browser: Any, first: Store, second: Store, evaluation: Path, tmp_path: Path
) -> None:
    page = Path(
        report_labels(
            first,
            tmp_path / "out",
            compare=second.location,
            evaluation=evaluation,
            compare_evaluation=evaluation,
            progress=False,
        ).page
    )
    rows = gallery(page.parent)
    assert rows["ids"] == sorted(set(first) & set(second)), "each store's order is its own"
    other = {one: second.label(one).reliability for one in rows["ids"]}
    means = [float(np.mean(other[one][other[one] > 0])) for one in rows["ids"]]
    assert rows["numbers"]["other_reliability"] == pytest.approx(means, rel=1e-4)
    assert all(0.1 < value < 0.6 for value in rows["numbers"]["depth_difference"])
    with Page(browser, page) as opened:
        opened.open("05.png")
        told = opened.drop(20, "dataset").split("\n")
        for number, store in enumerate((first, second)):
            dataset = depthsieve.PseudoLabelDataset(store, images=False, drop=0.2, scope="dataset")
            sample = dataset[dataset.ids.index("default/05.png")]
            expected = ((sample["reliability"] > 0) & ~sample["mask"]).numpy()
            np.testing.assert_array_equal(tinted(opened, f"canvas-mask-{number}"), expected)
            assert f"{int(expected.sum()):,} under code" in told[number]
        text = page.read_text()
    assert f"<td>labelled images</td><td>{COUNT}</td><td>11</td>" in text
    assert "10 images are in both" in text
    assert re.findall(r'<polyline class="(\w+)"', text)[::2] == ["random", "method", "other", "oracle"]


def test_stores_without_an_image_in_common_are_refused(first: Store, tmp_path: Path) -> None:
    other = make_store(tmp_path, [Picture("elsewhere.png", (56, 84), (28, 42))])
    with pytest.raises(
        UsageError, match=r"no image in common: one has 'default/00\.png', the other 'default/elsewhere"
    ):
        report_labels(first, tmp_path / "out", compare=other, progress=False)
    with pytest.raises(UsageError, match="needs compare and evaluation"):
        report_labels(first, tmp_path / "out", compare_evaluation=tmp_path, progress=False)
    assert not (tmp_path / "out").exists()


def test_a_label_lacks_no_depth_to_compare_itself_with(first: Store, tmp_path: Path) -> None:
    report_labels(first, tmp_path / "out", compare=first, images=2, progress=False)
    assert gallery(tmp_path / "out")["numbers"]["depth_difference"] == [0, 0]


def test_stores_are_called_by_the_ends_of_their_paths() -> None:
    assert short_names(["/a/labels"]) == ["labels"]
    assert short_names(["/a/labels", "/b/labels"]) == ["a/labels", "b/labels"]
    assert short_names(["/a/labels", "/a/labels"]) == ["labels (1)", "labels (2)"]
