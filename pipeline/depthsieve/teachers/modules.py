"""Teachers named by the code that makes them: ``package.module:factory``, or ``FOLDER/package.module:factory``.

It is a local import that somebody wrote down: Python's path is searched, and the working folder after it. Imports no
torch until it imports what is named.
"""

import difflib
import hashlib
import importlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from depthsieve.core.errors import TeacherNotFound, TeacherUnsupported, one_line

_DOTTED = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_NAME = re.compile(rf"(?:(?P<folder>.*)/)?(?P<module>{_DOTTED}):(?P<factory>{_DOTTED})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class FactoryName:
    """A function of a module, which lies in ``folder``, or wherever Python finds it."""

    folder: Path | None
    module: str
    factory: str

    @classmethod
    def parse(cls, name: str) -> "FactoryName | None":
        """What a teacher's name refers to, or None if it is no such name."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        folder = found["folder"]
        return cls(None if folder is None else Path(folder or "/").expanduser(), found["module"], found["factory"])

    def located(self) -> "FactoryName":
        """As it means the same in another working folder: with this one's path, if the module lies here."""
        folder = self.folder
        if folder is None and _is_here_alone(self.module.partition(".")[0]):
            folder = Path()
        return FactoryName(folder and folder.absolute(), self.module, self.factory)

    def __str__(self) -> str:
        name = f"{self.module}:{self.factory}"
        return name if self.folder is None else f"{self.folder.as_posix().rstrip('/')}/{name}"

    def load(self) -> Callable[..., Any]:
        """The function. Raises :class:`TeacherNotFound` or :class:`TeacherUnsupported`, one line each."""
        module = self.located()._import()
        found: Any = module
        for name in self.factory.split("."):
            if not hasattr(found, name):
                offered = [known for known, value in vars(module).items() if callable(value) and known[0] != "_"]
                close = difflib.get_close_matches(name, offered, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise TeacherNotFound(f"module {self.module!r} ({_file(module)}) has no {self.factory!r}{hint}")
            found = getattr(found, name)
        if not callable(found):
            raise TeacherUnsupported(
                f"{self.factory!r} of module {self.module!r} is {type(found).__name__}, and no function that takes a "
                "TeacherRequest and returns a Teacher"
            )
        return found  # type: ignore[no-any-return]

    def _import(self) -> Any:
        folder = None if self.folder is None else str(self.folder)
        if folder is not None and folder not in sys.path:
            sys.path.append(folder)  # for good: the module may import its neighbours later
        importlib.invalidate_caches()
        try:
            module = importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{self.module}.".startswith(f"{error.name}."):
                raise _broken(self.module, error) from error
            where = f"in {folder}" if folder else "in the working folder and in Python's path"
            raise TeacherNotFound(
                f"there is no module {error.name!r} {where}; install it, or name its folder: FOLDER/{self.module}:"
                f"{self.factory}"
            ) from error
        except (Exception, SystemExit) as error:  # it is not our code, and can fail in any way
            raise _broken(self.module, error) from error
        if self.folder is not None and self.folder.resolve() not in Path(_file(module)).resolve().parents:
            raise TeacherUnsupported(
                f"module {self.module!r} comes from {_file(module)}, and not from {folder}; give it another name"
            )
        return module


def digest_of_files(*paths: str | Path) -> str:
    """Hex sha256 of the contents of files, in this order, whatever they are called: for ``Teacher.weights_digest``.

    A teacher names its weights and its own code, ``digest_of_files(__file__, weights)``, so that labels of other code
    are another label spec. Raises :class:`OSError` for a file that cannot be read.
    """
    whole = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _broken(module: str, error: BaseException) -> TeacherUnsupported:
    return TeacherUnsupported(f"module {module!r} cannot be imported: {type(error).__name__}: {one_line(error)}")


def _file(module: Any) -> str:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return next((str(place) for place in places if place), "no file")


def _is_here_alone(top: str) -> bool:
    """Whether a module or package lies in the working folder, and Python finds no other of that name."""
    if PathFinder.find_spec(top, [str(Path.cwd())]) is None:
        return False
    elsewhere = [place for place in sys.path if Path(place).absolute() != Path.cwd()]
    for finder in sys.meta_path:
        if finder is PathFinder or type(finder).__module__.startswith("_pytest"):
            found = PathFinder.find_spec(top, elsewhere)
        else:
            found = finder.find_spec(top, None)
        if found is not None:
            return False
    return True
