"""A page of user code that calls everything public: mypy checks it strictly, and a test runs it on two photos."""

from pathlib import Path

import numpy as np
import torch

import depthsieve


def everything(photos: Path, folder: Path) -> dict[str, object]:
    """From photos to a training step, in ``folder``; some of what came out on the way."""
    found = depthsieve.scan(photos, folder / "photos.parquet", duplicates=True, progress=False)
    labels = folder / "labels"
    planned = depthsieve.plan(photos, labels, teacher="tiny", trial=False, progress=False)
    summary = depthsieve.label(
        photos,
        labels,
        teacher="tiny",
        signals="flip",
        keep_signals=True,
        batch_size=1,
        threads=1,
        progress=False,
        stop=depthsieve.Stop(grace_s=5),
    )
    state: depthsieve.StoreStatus = depthsieve.status(labels)
    teacher = depthsieve.load_teacher("tiny", device="cpu")

    store = depthsieve.open_store(labels)
    label = store[0]
    mask: np.ndarray = label.mask(drop=0.10)
    assert np.isnan(label.metric.scale)
    photo: np.ndarray = label.image()
    near: list[depthsieve.Label] = store[:2]

    seen: depthsieve.View = depthsieve.view(labels, worst=1, best=1, drop=0.10, progress=False)
    sheet: Path = seen.save(folder / "sheet.png")

    network = folder / "tiny.safetensors"
    torch.save({"model": {"layer": torch.ones(2)}}, folder / "weights.pt")
    converted = depthsieve.convert_weights(folder / "weights.pt", folder / "teacher")
    assert converted.part == "model"
    made = depthsieve.calibrate(teacher, network, scenes=20, judged=1, steps=1, progress=False)
    again = depthsieve.recalibrate(labels, name="second", progress=False)
    depthsieve.add_features(labels, device="cpu", progress=False)
    depthsieve.label(photos, labels, sequence=True, threads=1, progress=False)
    aligned = depthsieve.align_clips(labels, progress=False)
    assert depthsieve.open_store(labels)[0].aligned.shape == label.shape
    other = depthsieve.label(photos, folder / "other", teacher="tiny", signals="none", threads=1, progress=False)
    fused = depthsieve.fuse([labels, folder / "other"], folder / "fused", threads=1, progress=False)
    report: depthsieve.VerifyReport = depthsieve.verify(labels, repair=False, progress=False)

    truth = folder / "truth"
    truth.mkdir()
    for one in near:
        np.save(truth / f"{Path(one.id).stem}.npy", 1 / (one.depth.astype(np.float32) + 0.1))
    imported = depthsieve.import_labels(truth, folder / "made", images=photos, quantity="depth", progress=False)
    evaluation: depthsieve.Evaluation = depthsieve.evaluate_labels(labels, truth, align="scale-shift", progress=False)
    page = depthsieve.report_labels(labels, folder / "report", images=2, progress=False)
    subset = depthsieve.curate(labels, folder / "subset.parquet", max_dark=0.9, progress=False)
    exported = depthsieve.export_labels(labels, folder / "png", target="png", mask=0.10, progress=False)

    dataset = depthsieve.PseudoLabelDataset(labels, subset=folder / "subset.parquet", drop=0.10, scope="image", crop=84)
    per_pixel = depthsieve.ScaleShiftInvariantLoss(reduction="none")
    gradient, trimmed = depthsieve.GradientMatchingLoss(), depthsieve.TrimmedLoss(drop=0.10)
    losses: list[float] = []
    for batch in dataset.loader(2, threads=1):
        images, depths, masks = batch["image"], batch["depth"], batch["mask"]
        assert isinstance(images, torch.Tensor) and isinstance(depths, torch.Tensor) and isinstance(masks, torch.Tensor)
        guess = images.mean(1).requires_grad_()
        loss = trimmed(per_pixel(guess, depths, masks), masks) + gradient(guess, depths, masks)
        loss.backward()
        losses.append(loss.item())
    recipe: depthsieve.Recipe = depthsieve.load_recipe(depthsieve.recipe_names()[0])
    return {
        "scanned": found.images,
        "planned": planned.images,
        "labelled": (summary.labelled, other.labelled, state.labelled, len(store)),
        "quantity": (teacher.quantity, label.quantity),
        "shapes": (label.depth.shape, label.reliability.shape, mask.shape, photo.shape[:2]),
        "imported": imported.labelled,
        "seen": (len(seen.ids), sheet.stat().st_size > 0),
        "calibrated": (made.scenes, network.stat().st_size > 0),
        "recalibrated": again.images_now,
        "aligned": aligned.images_now,
        "fused": fused.fused_now,
        "sound": report.sound,
        "evaluated": [score.id for score in evaluation.images],
        "kept": subset.kept,
        "shown": page.shown,
        "exported": exported.images_now,
        "losses": losses,
        "recipe": recipe.name,
    }
