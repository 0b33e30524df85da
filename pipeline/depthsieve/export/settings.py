"""How labels are exported: settings and what comes back. Nothing heavy is imported here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from depthsieve.core.errors import UsageError
from depthsieve.core.records import ImageFailure
from depthsieve.core.settings import check_counts

Resolution = Literal["label", "source"]
Link = Literal["copy", "symlink", "hard"]


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """See :func:`depthsieve.export_labels`. Raises :class:`UsageError` for a value that is invalid."""

    target: str
    where: str | None = None
    reliability: str | None = None
    mask: float | None = None
    resolution: Resolution | None = None
    link: Link = "copy"
    threads: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_counts(self, "threads")
        if self.resolution not in (None, "label", "source"):
            raise UsageError(f"resolution must be label or source, not {self.resolution!r}")
        if self.link not in ("copy", "symlink", "hard"):
            raise UsageError(f"link must be copy, symlink or hard, not {self.link!r}")


@dataclass(frozen=True)
class ExportSummary:
    """What an export wrote, or with ``dry_run`` would write.

    Attributes:
        out: the output folder.
        target: its name.
        dry_run: nothing was written.
        images: images that the folder has now; with ``dry_run`` that it would have.
        images_now: of them, written by this call.
        left_out: images of the store that are not exported, by reason.
        first_left_out: the first three of them, by reason; of those that ``subset`` or ``where`` left out none.
        failed: images that could not be exported, with the reason.
        remedy: what to do about them; empty where none failed.
        bytes: what the files of the images take; with ``dry_run`` an estimate of what this call would write.
        free_bytes: free on that disk before anything was written.
        photos_linked: photos that were linked and not copied.
        notes: what a user should know, a line each.
        seconds: how long it took.
    """

    out: str
    target: str
    dry_run: bool
    images: int
    images_now: int
    left_out: Mapping[str, int]
    first_left_out: Mapping[str, tuple[str, ...]]
    failed: tuple[ImageFailure, ...]
    remedy: str
    bytes: int
    free_bytes: int
    photos_linked: int
    notes: tuple[str, ...]
    seconds: float
