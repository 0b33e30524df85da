"""``depthsieve.scan``: write a manifest of what sources hold, or bring one up to date.

While a scan is under way, what it has opened lies in parts beside the manifest, so that a killed one resumes.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthsieve.core.errors import SourceError, UsageError
from depthsieve.core.frames import ALL_FRAMES, FrameChoice
from depthsieve.core.patterns import add_patterns, checked_patterns
from depthsieve.core.processes import Process, is_alive
from depthsieve.core.records import DatasetNote, ImageFailure
from depthsieve.core.spill import read_parquet, spill_database
from depthsieve.core.tables import CHANGED, REJECTED_SCHEMA
from depthsieve.sources import Passed, Source, open_source
from depthsieve.sources.file_list import open_files
from depthsieve.sources.manifest import FORMAT, KEY, MANIFEST_SCHEMA, open_manifest, rejected_path
from depthsieve.sources.recipes import Recipe, load_recipe
from depthsieve.sources.scan import ScanBatch, ScanSettings, Tally, scan_batches
from depthsieve.storage import expand
from depthsieve.storage.local import sync

PART_SECONDS = 20.0
"""How much of a scan is done again after a kill, at most."""

SHOWN_REJECTS = 10_000
"""Rejects that a summary names; the file has all of them."""


@dataclass(frozen=True)
class ScanSummary:
    """What a manifest holds: ``images`` to label, and ``rejected`` files, the first of which are named in ``rejects``,
    and all in ``rejects_file``.

    ``opened`` counts files that had to be opened, ``changed`` those of them that the manifest knew otherwise;
    ``duplicates`` images that are another one's equal (None: nobody asked). ``skipped_hidden`` and ``skipped_other``
    count files that are hidden, do not look like images or do not count, ``excluded`` those that fit the patterns
    ``exclude``. ``notes`` are lines that a person should see.

    Of a ``dataset`` it says how many images were ``expected`` (None where nobody knows), whether it is ``complete``
    (about as many as expected), and in ``verdict`` the same as a line to read.
    """

    manifest: str
    rejects_file: str
    images: int
    rejected: int
    opened: int
    changed: int
    duplicates: int | None
    skipped_hidden: int
    skipped_other: int
    seconds: float
    rejects: tuple[ImageFailure, ...]
    dataset: DatasetNote | None = None
    expected: int | None = None
    complete: bool | None = None
    verdict: str = ""
    exclude: tuple[str, ...] = ()
    excluded: int = 0
    notes: tuple[str, ...] = ()


def scan(
    sources: str | Path | Sequence[str | Path] | Mapping[str, str | Path],
    out: str | Path,
    *,
    root: str | None = None,
    dataset: str | None = None,
    exclude: Sequence[str] = (),
    every: int | None = None,
    fps: float | None = None,
    duplicates: bool = False,
    progress: bool = True,
) -> ScanSummary:
    """Write a manifest of what some sources hold, or bring it up to date if it exists.

    Files whose size and time the manifest knows are not opened again; a scan that was killed resumes.

    Args:
        sources: one source, several, or a mapping of names to paths. "name=path" names a source; without a name it is
            called "default". See :func:`depthsieve.sources.open_source` for what a source may be.
        out: the manifest, a path that ends in ``.parquet``; rejected files go to ``<stem>.rejected.parquet`` beside it.
        root: the folder or URL that the ids of a list of files are relative to; default: the list's own folder.
        dataset: the name of a recipe, or its TOML file (:func:`depthsieve.load_recipe`). There is one source then; the
            recipe names it and says which files count, and the manifest keeps its terms.
        exclude: patterns of files to leave out, such as "depth/" or "*_mask.png", added to those that the manifest
            remembers; "none" forgets what stands before it. Without a slash in it a pattern fits a file or folder of
            that name anywhere, else a path from the root on.
        every: of videos, take every N-th frame (None: as the manifest remembers, or the recipe says, else all).
        fps: of videos, take this many frames a second, in place of ``every``.
        duplicates: read every file whole, for its sha256, and mark images whose bytes are equal.
        progress: show a progress bar on stderr, or in the notebook.

    Raises :class:`UsageError` and :class:`SourceError` before anything is written, and :class:`RunError` where there is
    no room to sort. Files that cannot be labelled raise nothing: they are in the summary and in the table of rejects.
    """
    recipe = load_recipe(dataset) if dataset is not None else None
    counts = None
    if recipe is not None:
        sources, counts = _of_dataset(recipe, sources), _counted_by(recipe)
    opened = _open_all(sources, root)
    path = Path(os.path.abspath(expand(out)))  # noqa: PTH100 (a link to a manifest stays one)
    if path.suffix != ".parquet":
        raise UsageError(f"a manifest's name ends in .parquet, not {path.name!r}")
    left_out = said = checked_patterns(exclude)
    frames = FrameChoice.of(every, fps) or (recipe.images.frames if recipe is not None else None)
    if path.exists():
        before = open_manifest(path)
        left_out = add_patterns(before.exclude, said)
        frames = FrameChoice.of(every, fps) or next(iter(before.frames.values()), frames)
        roots = {source.name: source.root for source in opened}
        moved = [name for name, root in roots.items() if before.sources.get(name, root) != root]
        if moved:
            was, now = before.sources[moved[0]], roots[moved[0]]
            raise SourceError(
                f"{path} knows source {moved[0]!r} as {was}, not {now}; write another manifest, or name the source "
                f"otherwise: NAME={now}"
            )
    start = time.perf_counter()
    notes = {recipe.name: recipe.note} if recipe is not None else {}
    left_out = add_patterns((), left_out)
    settings = ScanSettings(keep=True, hashes=duplicates, counts=counts, exclude=left_out)
    tally = _Writer(path, opened, settings, notes, frames).write(progress)
    complete, verdict = recipe.judge(tally.images) if recipe is not None else (None, "")
    rejects = _rejects(path)
    equal = None
    if duplicates:
        column = pq.read_table(path, columns=["duplicate_of"])["duplicate_of"]
        equal = len(column) - column.null_count
    return ScanSummary(
        manifest=str(path),
        rejects_file=str(rejected_path(path)),
        images=tally.images,
        rejected=tally.rejected,
        opened=tally.images + tally.rejected - tally.known,
        changed=tally.changed,
        duplicates=equal,
        skipped_hidden=tally.passed.hidden,
        skipped_other=tally.passed.other,
        seconds=time.perf_counter() - start,
        rejects=rejects,
        dataset=recipe.note if recipe is not None else None,
        expected=recipe.images.expected if recipe is not None else None,
        complete=complete,
        verdict=verdict,
        exclude=left_out,
        excluded=tally.passed.excluded,
        notes=tally.notes(),
    )


class _Writer:
    """One scan on its way into a manifest."""

    def __init__(
        self,
        path: Path,
        sources: Sequence[Source],
        settings: ScanSettings,
        notes: Mapping[str, DatasetNote],
        frames: FrameChoice | None,
    ) -> None:
        self._path = path
        self._notes = notes
        self._frames = frames
        self._sources = sources
        self._settings = settings
        self._parts = path.with_name(f"{path.name}.parts")

    def write(self, progress: bool) -> Tally:
        """Scan, and put both files in place, the manifest last."""
        tally = Tally(passed=Passed(frames=self._frames or ALL_FRAMES))
        body: dict[str, Any] = {"format": FORMAT, "sources": {one.name: one.root for one in self._sources}}
        if self._settings.exclude:
            body["exclude"] = self._settings.exclude
        if self._frames is not None:
            body["frames"] = str(self._frames)
        if self._notes:
            body["datasets"] = {name: dataclasses.asdict(note) for name, note in self._notes.items()}
        schema = MANIFEST_SCHEMA.with_metadata({KEY: json.dumps(body, sort_keys=True)})
        attempt = self._parts / f"attempt-{Process.current().token}"
        try:
            self._parts.mkdir(parents=True, exist_ok=True)
            for left in self._parts.glob("attempt-*"):
                if is_alive(left.name.removeprefix("attempt-")) is not True:
                    shutil.rmtree(left, ignore_errors=True)
            attempt.mkdir()
            with (
                pq.ParquetWriter(attempt / "images", schema, compression="zstd") as images,
                pq.ParquetWriter(attempt / "rejected", REJECTED_SCHEMA, compression="zstd") as rejected,
            ):
                batches = scan_batches(
                    self._sources, self._known(), attempt / "sort", tally, settings=self._settings, progress=progress
                )
                with contextlib.closing(self._kept(batches)) as kept:
                    for batch in kept:
                        images.write_table(_as(batch.images, MANIFEST_SCHEMA))
                        if len(batch.rejected):  # else there would be an empty row group for every batch
                            rejected.write_table(_as(batch.rejected, REJECTED_SCHEMA))
            if not tally.images + tally.rejected:  # nor is a manifest emptied because a disk is not mounted
                raise SourceError(self._nothing_there(tally))
            finished = attempt / "images"
            if self._settings.hashes:
                finished = _mark_duplicates(finished, attempt, schema)
            for made, place in ((attempt / "rejected", rejected_path(self._path)), (finished, self._path)):
                sync(made)
                made.replace(place)
            shutil.rmtree(self._parts)
        except OSError as error:
            raise SourceError(f"{error.filename or self._path}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(attempt, ignore_errors=True)
            with contextlib.suppress(OSError):  # what was opened is kept there for the next scan, where there is any
                self._parts.rmdir()
        return tally

    def _nothing_there(self, tally: Tally) -> str:
        if self._notes:
            return _nothing_counts(self._sources[0], tally.passed.other)
        searched = ", ".join(source.shown for source in self._sources)
        return f"no images in {searched} ({tally.passed})"

    def _kept(self, batches: Iterable[ScanBatch]) -> Generator[ScanBatch, None, None]:
        """The same batches; what was opened for them is saved now and then, and when something stops the scan."""
        waiting: list[pa.Table] = []
        saved = time.monotonic()
        try:
            for batch in batches:
                for table in (batch.images, batch.rejected):
                    opened = table.filter(pc.is_valid(table[CHANGED.name]))
                    if len(opened):
                        waiting.append(opened)
                yield batch
                if waiting and time.monotonic() - saved > PART_SECONDS:
                    self._save(waiting)
                    waiting, saved = [], time.monotonic()
            waiting = []
        finally:
            if waiting:
                self._save(waiting)

    def _save(self, tables: list[pa.Table]) -> None:
        joined = pa.concat_tables(tables, promote_options="default")
        number = len(list(self._parts.glob("*.part")))
        path = self._parts / f"{number:06d}-{os.getpid()}"
        pq.write_table(joined, path, compression="zstd")
        path.rename(path.with_suffix(".part"))

    def _known(self) -> Iterator[pa.Table]:
        """What this manifest knew before, and what unfinished scans have opened since."""
        names = [source.name for source in self._sources]
        files = [one for one in (self._path, rejected_path(self._path)) if one.is_file()]
        parts = sorted(self._parts.glob("*.part"))
        for generation, path in [*((0, one) for one in files), *((1 + n, one) for n, one in enumerate(parts))]:
            try:
                for table in read_parquet(path):
                    kept = [name for name in table.column_names if name not in (CHANGED.name, "duplicate_of")]
                    table = table.select(kept)
                    name = pc.list_element(pc.split_pattern(table["id"], "/", max_splits=1), 0)
                    table = table.filter(pc.is_in(name, value_set=pa.array(names)))
                    yield table.append_column("generation", pa.array([generation] * len(table), pa.int32()))
            except (pa.ArrowException, OSError) as error:
                if path in files:
                    raise SourceError(f"{path} is damaged; remove it, and scan anew") from error


def _open_all(
    sources: str | Path | Sequence[str | Path] | Mapping[str, str | Path], root: str | None
) -> tuple[Source, ...]:
    if isinstance(sources, Mapping):
        named = [(name, path) for name, path in sources.items()]
    else:
        named = [_named(one) for one in ([sources] if isinstance(sources, str | Path) else sources)]
    if not named:
        raise UsageError("name at least one source to scan")
    unnamed = [path for name, path in named if name == "default"]
    if len(unnamed) > 1:  # as a shell hands over photos/*.jpg
        named = [(name, path) for name, path in named if name != "default"]
    opened = tuple(open_source(path, name, root) for name, path in named)
    if len(unnamed) > 1:
        opened = (open_files(unnamed, "default", root), *opened)
    names = [source.name for source in opened]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two sources are called {twice!r}; give each its own name: NAME=PATH")
    return opened


def _of_dataset(
    recipe: Recipe, sources: str | Path | Sequence[str | Path] | Mapping[str, str | Path]
) -> dict[str, str | Path]:
    """The one place of a dataset, under its name."""
    places = [sources] if isinstance(sources, str | Path) else list(sources)
    if len(places) != 1 or isinstance(sources, Mapping):
        raise UsageError(f"a dataset is scanned from one place and names it itself; scan {recipe.name} alone")
    return {recipe.name: places[0]}


def _nothing_counts(source: Source, others: int) -> str:
    found = f"nothing in {source.shown} is an image of dataset {source.name} ({others:,} other files)"
    return f"{found}; is it the folder that its layout begins in? `depthsieve datasets {source.name}` shows it"


def _counted_by(recipe: Recipe) -> Callable[[str], bool]:
    return lambda image: recipe.counts(image.partition("/")[2])


def _named(source: str | Path) -> tuple[str, str | Path]:
    """The name and path in "name=path"; what has no name, or exists as it stands, is "default"."""
    name, equals, path = str(source).partition("=")
    if not equals or "/" in name or not name or os.path.exists(source):  # noqa: PTH110
        return "default", source
    return name, path


def _as(table: pa.Table, schema: pa.Schema) -> pa.Table:
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(schema.names).cast(schema)


def _mark_duplicates(images: Path, attempt: Path, schema: pa.Schema) -> Path:
    """The manifest again, each image with the first id, in their order, that has the same content."""
    path = attempt / "marked"
    with spill_database(attempt / "duplicates") as database:
        database.create("images", MANIFEST_SCHEMA)
        database.append("images", read_parquet(images))
        database.run("CREATE TABLE firsts AS SELECT content_sha256, min(id) AS first FROM images GROUP BY ALL")
        columns = ", ".join(f"images.{field.name}" for field in list(MANIFEST_SCHEMA)[:-1])
        marked = (
            f"SELECT {columns}, CASE WHEN first <> id THEN first END AS duplicate_of FROM images "
            "LEFT JOIN firsts ON images.content_sha256 = firsts.content_sha256 ORDER BY id"
        )
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for table in database.read(marked):
                writer.write_table(table.cast(MANIFEST_SCHEMA))
    return path


def _rejects(path: Path) -> tuple[ImageFailure, ...]:
    with pq.ParquetFile(rejected_path(path)) as file:
        batch = next(file.iter_batches(SHOWN_REJECTS, columns=["id", "reason"]), None)
    rows = batch.to_pylist() if batch is not None else []
    return tuple(ImageFailure(row["id"], row["reason"]) for row in rows)
