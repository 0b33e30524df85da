"""Look at labels: one, or a contact sheet of some."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from depthsieve.core.errors import RunError, UsageError
from depthsieve.images.panels import Panels
from depthsieve.images.sheet import draw_sheet, png
from depthsieve.report import cloud
from depthsieve.report.choosing import Choice, choose
from depthsieve.report.sheet import label_panels
from depthsieve.store import Label, Store, open_store

SOFTWARE = "depthsieve"
"""The text chunk ``Software`` of each PNG: what has it is ours to overwrite."""


@dataclass(frozen=True)
class View:
    """Labels to look at: get one with :func:`view`. In a notebook it draws itself.

    ``ids`` are those shown, in order; ``chosen`` says how they were chosen; ``notes`` are lines that a person should
    see, such as photos that cannot be read; ``picture`` is a Pillow image.
    """

    store: str
    ids: tuple[str, ...]
    chosen: str
    notes: tuple[str, ...]
    picture: Image.Image = field(repr=False, compare=False)
    labels: tuple[Label, ...] = field(repr=False, compare=False)

    @property
    def reliability_from(self) -> str:
        """What the reliability that is shown comes from, in words."""
        return self.labels[0].store.reliability_from

    def save_cloud(
        self, path: str | Path, drop: float = 0.10, focal: float | None = None, fov: float | None = None
    ) -> cloud.Cloud:
        """Write the only label of this view as a coloured point cloud, whole or not at all, and return that.

        See :func:`depthsieve.report.cloud.cloud_of` for the options and what is raised; a file that is there is
        replaced if it is one of ours. Raises :class:`UsageError` where more than one label is shown, too.
        """
        if len(self.labels) != 1:
            raise UsageError(f"a point cloud is of one label, and {len(self.labels):,} are chosen; name one ID")
        target = Path(path)
        check_target(target, ".ply", cloud.is_ours)
        made = cloud.cloud_of(self.labels[0], drop, focal, fov)
        write_whole(target, made.ply())
        return made

    def save(self, path: str | Path) -> Path:
        """Write the PNG, whole or not at all. A file that is there is replaced if it is such a picture.

        Raises :class:`UsageError` for a place that will not do, :class:`RunError` where it cannot be written.
        """
        target = Path(path)
        check_target(target, ".png", _is_ours)
        write_whole(target, self._png)
        return target

    @functools.cached_property
    def _png(self) -> bytes:
        return png(self.picture, Software=SOFTWARE)

    def _repr_png_(self) -> bytes:
        return self._png


def view(
    store: str | Path | Store,
    ids: Sequence[str] = (),
    *,
    worst: int | None = None,
    best: int | None = None,
    random: int | None = None,
    seed: int = 0,
    where: str | None = None,
    drop: float = 0.10,
    reliability: str | None = None,
    progress: bool = True,
) -> View:
    """Draw labels of a store: photo, depth, reliability, and what a mask would drop. One label is drawn large.

    Depth is red where it is near and blue where it is far, from its 2nd to its 98th percentile; reliability is
    stretched over what is shown, with a key. Pixels without a label are chequered. Where nothing says which or how
    many, 8 are shown, at even distances from the least to the most reliable.

    Args:
        store: path or URL of a store, or an open one.
        ids: images, or beginnings of ids; the name of the source may be left out. None: any.
        worst: so many of the lowest mean reliability, lowest first.
        best: so many of the highest, highest first.
        random: so many at random.
        seed: for ``random``.
        where: one SQL expression over the columns of the index, as :func:`depthsieve.curate` has it.
        drop: share of each label's valid pixels that the mask drops, from 0 to under 1.
        reliability: the name of a layer that :func:`depthsieve.recalibrate` made, whose reliability is shown.
        progress: a bar on stderr while reliability is read.

    Raises:
        UsageError: an invalid option.
        NoLabel: an id that has no label.
        StoreError: no store, or no label to show.
        StoreDamaged: a label that cannot be read.
    """
    choice = Choice(worst, best, random, seed, where)
    opened = store if isinstance(store, Store) else open_store(store, reliability)
    chosen, how = choose(opened, [ids] if isinstance(ids, str) else ids, choice, drop, progress)
    panels = list(label_panels(opened, chosen, drop))
    return View(
        opened.location,
        tuple(chosen),
        how,
        tuple(_notes(panels, drop)),
        draw_sheet(panels, drop, large=len(panels) == 1),
        tuple(opened.label(image_id) for image_id in chosen),
    )


def _notes(panels: Sequence[Panels], drop: float) -> Iterator[str]:
    no_photo = [one.no_photo for one in panels if one.no_photo]
    if no_photo:
        yield f"{len(no_photo)} of {len(panels)} photos cannot be read, and are chequered: {no_photo[0]}"
    codes = {code for one in panels for code in one.codes}
    if drop > 0 and len(codes) == 1 and not any(one.masked for one in panels):
        yield f"every valid pixel has the same reliability, so a mask at {100 * drop:g}% drops none"


def check_target(path: Path, suffix: str, is_ours: Callable[[Path], bool]) -> None:
    """Raise :class:`UsageError` where ``path`` has another suffix, lies nowhere, or holds what is not ours."""
    if path.suffix.lower() != suffix:
        raise UsageError(f"the name of the file ends in {suffix}, not {path.name!r}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file, such as {path / f'view{suffix}'}")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a folder; name a file in one that is there")
    if path.exists() and not is_ours(path):
        raise UsageError(f"{path} is there and was not written by depthsieve; name another file, or remove it")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises :class:`RunError` where it cannot be written."""
    attempt = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            attempt.write_bytes(data)
            attempt.replace(path)
        finally:
            with contextlib.suppress(OSError):
                attempt.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; name another place") from error


def _is_ours(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            return picture.format == "PNG" and picture.info.get("Software") == SOFTWARE
    except OSError:
        return False
