"""What the name of a teacher means: the embedded one, a preset, a plug-in's, a local folder, a hub id, or the function
that makes it (:mod:`depthsieve.teachers.modules`).

A plug-in is an installed package with an entry point in the group :data:`GROUP`: the entry point's name is the
teacher's, and it refers to a function that takes a :class:`~depthsieve.core.records.TeacherRequest` (with nothing
left "auto") and returns a :class:`~depthsieve.teachers.protocol.Teacher`. Imports no torch until it loads one.
"""

import dataclasses
import difflib
import importlib.metadata
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from depthsieve.core.errors import DepthsieveError, TeacherNotFound, TeacherUnsupported, UsageError, one_line
from depthsieve.core.records import Dtype, Quantity, TeacherRequest, canonical_json
from depthsieve.teachers.checkpoints import Checkpoint, hub_checkpoint, read_checkpoint
from depthsieve.teachers.modules import FactoryName
from depthsieve.teachers.presets import FOLDERS, IN_PACKAGE, PRESETS, find_preset
from depthsieve.teachers.protocol import Better, IntrinsicsUse, Teacher
from depthsieve.teachers.unidepth import installed as unidepth

GROUP = "depthsieve.teachers"

METHODS = ("label_shape", "prepare", "half_shape", "predict")


@dataclass(frozen=True, slots=True)
class PlugIn:
    """A teacher that an installed package offers. ``package`` is the package's name and version, ``clash`` says what
    else has this name, if anything: then it cannot be used."""

    name: str
    package: str
    entry: importlib.metadata.EntryPoint
    clash: str | None = None


def plug_ins() -> tuple[PlugIn, ...]:
    """What installed packages offer, by name; nothing of theirs is imported."""
    found = [
        PlugIn(entry.name, f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package", entry)
        for entry in importlib.metadata.entry_points(group=GROUP)
    ]
    return tuple(sorted((_with_clash(one, found) for one in found), key=lambda one: (one.name, one.package)))


def _with_clash(one: PlugIn, found: list[PlugIn]) -> PlugIn:
    clash = None
    if others := sorted(other.package for other in found if other.name == one.name and other.entry != one.entry):
        clash = f"packages {', '.join(sorted([one.package, *others]))} all offer it; uninstall all but one"
    if find_preset(one.name):
        clash = f"package {one.package} offers it too, though it is a name of depthsieve's own; uninstall that package"
    return dataclasses.replace(one, clash=clash)


def find_plug_in(name: str) -> PlugIn | None:
    """The plug-in called ``name``, or None. Raises :class:`UsageError` where something else has that name too."""
    found = next((one for one in plug_ins() if one.name == name), None)
    if found is not None and found.clash is not None:
        raise UsageError(f"teacher {name!r} is ambiguous: {found.clash}")
    return found


def full_name(name: str) -> str:
    """``name`` as it means the same in another working folder: a local folder by its whole path, and so a module that
    lies in the working folder."""
    if find_preset(name) is not None or find_plug_in(name) is not None:
        return name
    if _exists(Path(name)) and Path(name).is_dir():
        return str(Path(name).absolute())
    factory = FactoryName.parse(name)
    return name if factory is None else str(factory.located())


def load(request: TeacherRequest) -> Teacher:
    """See :func:`depthsieve.teachers.load_teacher`."""
    from depthsieve.teachers.resolving import resolve, resolve_device

    resolve_device(request.device)  # before anything is fetched
    plug_in = find_plug_in(request.name)
    if plug_in is not None:
        return _made_by(plug_in.entry.load, f"{request.name!r} of package {plug_in.package}", resolve(request))
    factory = None if _exists(_expand_home(request.name)) else FactoryName.parse(request.name)
    if factory is not None:
        return _made_by(factory.load, repr(request.name), resolve(request))
    from depthsieve.teachers.loading import load_checkpoint

    return load_checkpoint(find_checkpoint(request.name, request.revision), request)


def load_made(factory: Callable[[TeacherRequest], Teacher], request: TeacherRequest) -> Teacher:
    """What a function makes of a request, checked and with errors as of a plug-in's."""
    from depthsieve.teachers.resolving import resolve

    return _made_by(lambda: factory, f"of {getattr(factory, '__qualname__', 'a function')}", resolve(request))


def find_checkpoint(name: str, revision: str | None = None) -> Checkpoint:
    """The checkpoint that ``name`` means: embedded (``tiny``), a preset, a local folder, or a hub id ``owner/model``.

    They are tried in that order: a folder that is called like a preset is reached as ``./name``. Hub snapshots are
    taken from the cache where it has them, so that a run means the same tomorrow; ``revision`` (a branch, tag or
    commit) asks for another one.

    Raises :class:`UsageError`, :class:`TeacherNotFound` or :class:`TeacherUnsupported`, one line each.
    """
    preset = find_preset(name)
    path = _expand_home(name)
    embedded = FOLDERS.get(name)
    if embedded or (preset is None and (_exists(path) or _looks_like_path(name))):
        if revision is not None:
            raise UsageError(f"--revision {revision} is for models of the hub; {name!r} is a folder")
        return read_checkpoint(name, Path(__file__).parent / embedded if embedded else path)
    if preset is None and name.count("/") != 1:
        known = [*(known.name for known in (*IN_PACKAGE, *PRESETS)), *(known.name for known in plug_ins())]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "`depthsieve teachers` lists what there is"
        raise TeacherNotFound(
            f"no teacher {name!r}: not a preset, a plug-in's, a local folder, a hub id owner/model or "
            f"package.module:factory; {hint}"
        )
    if preset is not None and preset.pickled:
        raise TeacherUnsupported(
            f"teacher {name!r} is published as a pickle, which is not loaded: get {preset.pickled} of {preset.hub_id} "
            f"from the hub, and say `depthsieve convert-weights {preset.pickled} {name}/`, then --teacher ./{name}"
        )
    lacking = unidepth.lacking() if preset is not None and preset.needs == unidepth.PACKAGE else None
    if lacking is not None:  # before weights are fetched that could not be used
        raise TeacherUnsupported(f"teacher {name!r}: {lacking}")
    return hub_checkpoint(name, preset.hub_id if preset else name, revision)


def _expand_home(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # no such user
        return Path(name)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long to be a path, for instance: a name of another kind
        return False


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1


def _made_by(find: Callable[[], Callable[[TeacherRequest], Teacher]], called: str, request: TeacherRequest) -> Teacher:
    """What a function of another package makes of a request; ``called`` is it in messages."""
    from depthsieve.teachers.resolving import errors_named

    with errors_named(called):
        try:
            teacher = find()(dataclasses.replace(request, second=None))
        except (DepthsieveError, MemoryError, RuntimeError):
            raise
        except (Exception, SystemExit) as error:  # it is not our code, and can fail in any way
            raise TeacherUnsupported(f"it cannot be loaded: {type(error).__name__}: {one_line(error)}") from error
        check_contract(teacher)
        if request.quantity not in (None, teacher.quantity):
            raise UsageError(f"it predicts {teacher.quantity}; leave out --quantity {request.quantity}")
    return teacher


def check_contract(teacher: Any) -> Teacher:
    """The teacher. Raises :class:`TeacherUnsupported` for one that lacks what labelling builds on."""
    for name in (*Teacher.__annotations__, *METHODS):
        if not hasattr(teacher, name):
            raise TeacherUnsupported(
                f"what it returned, {type(teacher).__name__}, is no teacher: it has no {name!r}; inherit from "
                "depthsieve.teachers.Teacher for the defaults"
            )
    wanted = {
        "quantity": (teacher.quantity, get_args(Quantity)),
        "unit": (teacher.unit, ("m",) if teacher.quantity == "depth" else ("",)),
        "dtype": (teacher.dtype, get_args(Dtype)[1:]),
        "confidence_better": (teacher.confidence_better, (None, *get_args(Better))),
        "intrinsics_in": (teacher.intrinsics_in, get_args(IntrinsicsUse)),
        "intrinsics_out": (teacher.intrinsics_out, (False, True)),
    }
    for name, (value, known) in wanted.items():
        if value not in known:
            raise TeacherUnsupported(f"its {name} is {value!r}, not {' or '.join(map(repr, known))}")
    if not re.fullmatch("[0-9a-f]{64}", str(teacher.weights_digest)):
        raise TeacherUnsupported(f"its weights_digest is {teacher.weights_digest!r}, no hex sha256")
    try:
        canonical_json(teacher.preprocessing)
    except (TypeError, ValueError) as error:
        raise TeacherUnsupported(f"its preprocessing is not plain JSON: {error}") from error
    return teacher  # type: ignore[no-any-return]
