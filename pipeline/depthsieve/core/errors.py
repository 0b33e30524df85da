"""All errors that depthsieve raises on purpose. Each can also be caught as the fitting built-in.

    DepthsieveError
    ├── UsageError (ValueError)            an option or argument that is invalid
    ├── ImageRejected (ValueError)         one image cannot be labelled; it is recorded by name, never fatal for others
    ├── SourceError (ValueError)           a source that is missing, empty, or does not match its name
    ├── TeacherError (RuntimeError)
    │   ├── TeacherNotFound (LookupError)  not cached and no network, or no such folder
    │   └── TeacherUnsupported (ValueError) not a depth model, no safetensors, a missing dependency
    ├── StoreError (RuntimeError)
    │   ├── StoreNotFound (LookupError)    no store at this path
    │   ├── StoreMismatch (ValueError)     the store was made under another label spec or format
    │   ├── StoreBusy (BlockingIOError)    another process labels into it
    │   ├── NoLabel (KeyError)             the store has no label of this image
    │   └── StoreDamaged (ValueError)      a digest does not fit
    ├── GroundTruthError (ValueError)      ground truth that is missing, ambiguous, or cannot be read
    ├── RunError (RuntimeError)            a run that had to stop; what is committed stands
    │   └── RunInterrupted                 it ended for want of what may come back, such as workers
    └── LoaderError (ValueError)           a dataset or state that does not fit the store

The message says what was wrong, which item, and what to do. The command line prints it as one line.
"""

import errno

IMAGE_FAULTS = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
"""File errors that are the image's own: trying again at once cannot help. All others are transient at first."""


class DepthsieveError(Exception):
    """Base of all errors that depthsieve raises on purpose."""


class UsageError(DepthsieveError, ValueError):
    """An option or argument that is invalid."""


class ImageRejected(DepthsieveError, ValueError):
    """One image cannot be labelled; the message is the reason that is recorded with its name."""


class SourceError(DepthsieveError, ValueError):
    """A source that is missing, empty, or does not match its name."""


class TeacherError(DepthsieveError, RuntimeError):
    """A teacher that cannot be used."""


class TeacherNotFound(TeacherError, LookupError):
    """The teacher is not cached and there is no network, or the folder does not exist."""


class TeacherUnsupported(TeacherError, ValueError):
    """The checkpoint is there, but it is not a depth model that can be loaded safely."""


class StoreError(DepthsieveError, RuntimeError):
    """A store that cannot be used."""


class StoreNotFound(StoreError, LookupError):
    """There is no store at this path."""


class StoreMismatch(StoreError, ValueError):
    """The store was made under another label spec or format version."""


class StoreBusy(StoreError, BlockingIOError):
    """Another process labels into this store."""


class NoLabel(StoreError, KeyError):
    """The store has no label of this image: it does not know it, or it failed, or it is not labelled yet."""

    __str__ = Exception.__str__  # a KeyError would show the message in quotes


class NoMetres(StoreError, ValueError):
    """A relative label of which nobody knows the scale."""


class NotAligned(StoreError, ValueError):
    """A label that was not aligned with the frames of its clip."""


class StoreDamaged(StoreError, ValueError):
    """A file of the store does not fit its digest."""


class GroundTruthError(DepthsieveError, ValueError):
    """Ground truth that is missing, ambiguous, or cannot be read."""


class RunError(DepthsieveError, RuntimeError):
    """A run that had to stop; what is committed is kept, and running the same command again resumes."""


class RunInterrupted(RunError):
    """A run that ended because what it needs, such as a worker, did not come in time: nothing is wrong with it."""


class LoaderError(DepthsieveError, ValueError):
    """A dataset or a saved state that does not fit the store."""


ROOM = 1000
"""Characters for a reason of our own, which may name two places and ends in what to do."""


def one_line(error: BaseException, limit: int = 200) -> str:
    """The first line of an error's text, at most ``limit`` characters; its type's name where it has none."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "") or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
