"""Recipes of datasets: which files of a download count, how many they are, and under which terms they may be used.

A recipe is a TOML file; those of well-known datasets ship with depthsieve and go by their short name. It is read
strictly: a key that is unknown, missing or of another type is named with its file, since a slip in a recipe would pass
silently as "all files count".
"""

import dataclasses
import difflib
import re
import tomllib
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from depthsieve.core.errors import UsageError
from depthsieve.core.frames import FrameChoice
from depthsieve.core.patterns import check_pattern, fits
from depthsieve.core.records import DatasetNote

FORMAT = 1
"""The value of ``depthsieve_dataset``, the first key of every recipe."""

NO_RECIPES = {"template", "demo-scenes"}
"""Files beside the recipes: the one to copy, and that of the demo's scenes, which says something else."""

CONTAINERS = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".zip", ".parquet", ".lmdb", ".mdb", ".h5", ".hdf5", ".mat")
"""How names of files end that hold images themselves: one that cannot be read is told of, whatever its members."""

Answer = Literal["yes", "no", "not confirmed"]


@dataclass(frozen=True)
class Licence:
    """Terms of use, as far as they were read. ``share_labels``: whether labels made of the images may be passed on.

    ``consequences`` says in plain words what follows for labels and for what is trained on them.
    """

    name: str
    url: str
    commercial_use: Answer
    share_labels: Answer
    attribution: Answer
    consequences: str


@dataclass(frozen=True)
class Images:
    """Which files count and how many there should be.

    ``include`` and ``exclude`` are patterns of paths below the root, see :mod:`depthsieve.core.patterns`.
    ``expected`` (None where nobody knows) may be off by the share ``tolerance``; ``expected_from`` says who counted,
    ``paper`` what the Depth Anything V2 paper used. Of videos every ``every``-th frame is taken (None: all).
    """

    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    expected: int | None = None
    expected_from: str = ""
    tolerance: float = 0.01
    paper: str = ""
    every: int | None = None

    @property
    def frames(self) -> FrameChoice | None:
        """Which frames of videos are taken; None where the recipe does not say."""
        return FrameChoice.of(self.every, None)


@dataclass(frozen=True)
class Recipe:
    """One recipe. ``layout`` is what a download looks like, ``prepare`` what to do before a scan, ``scan`` the
    commands; ``traps`` are what people fell into; ``sources`` are where it was read, ``not_confirmed`` what was not.
    """

    depthsieve_dataset: int
    name: str
    title: str
    kind: Literal["real", "synthetic"]
    home: str
    citation: str
    layout: str
    licence: Licence
    images: Images
    scan: tuple[str, ...]
    prepare: str = ""
    traps: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    not_confirmed: tuple[str, ...] = ()

    @property
    def note(self) -> DatasetNote:
        """What travels with the labels."""
        terms = self.licence
        return DatasetNote(
            name=self.name,
            title=self.title,
            home=self.home,
            licence=terms.name,
            licence_url=terms.url,
            commercial_use=terms.commercial_use,
            share_labels=terms.share_labels,
            attribution=terms.attribution,
            consequences=" ".join(terms.consequences.split()),
            citation=self.citation.strip(),
        )

    def counts(self, path: str) -> bool:
        """Whether an image counts, by its path: what its id has behind the source's name and the slash.

        A container itself counts unless it is excluded: one that cannot be read is told of, whatever is in it.
        """
        is_container = "::" not in path and path.lower().endswith(CONTAINERS)
        included = is_container or fits(path, self.images.include)
        return included and not fits(path, self.images.exclude)

    def judge(self, found: int) -> tuple[bool, str]:
        """Whether ``found`` images are about as many as expected, and one line that says so."""
        expected = self.images.expected
        if expected is None:
            return True, f"{self.name}: found {found:,} images; how many there should be is not known."
        if abs(found - expected) <= expected * self.images.tolerance:
            words = "exactly as" if found == expected else f"of {expected:,}"
            return True, f"{self.name}: found {found:,} images, {words} expected."
        words = f"{self.name}: found {found:,} images, expected {_about(expected)}"
        if found < expected:
            return False, f"{words}: a part of it, or a download that is not complete."
        return False, f"{words}: other files fit its patterns too, or this is another edition of it."


def recipe_names() -> list[str]:
    """The short names of the recipes that ship with depthsieve, sorted."""
    return sorted(path.stem for path in recipes_folder().glob("*.toml") if path.stem not in NO_RECIPES)


def load_recipe(name: str | Path) -> Recipe:
    """The recipe of a short name, or in a file. Raises :class:`UsageError` in one line for what is none."""
    text = str(name)
    if not text.endswith(".toml") and "/" not in text:
        if text in recipe_names():
            return read_recipe(recipes_folder() / f"{text}.toml")
        near = difflib.get_close_matches(text.lower(), recipe_names(), n=1, cutoff=0.5)
        known = f"did you mean {near[0]}?" if near else f"there are {', '.join(recipe_names())}."
        raise UsageError(f"no dataset is called {text!r}: {known} A recipe of your own is named by its file, FILE.toml")
    return read_recipe(Path(name))


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file. Raises :class:`UsageError` that names the file and the key."""
    try:
        body = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"recipe {path}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:  # of TOML or of UTF-8
        raise UsageError(f"recipe {path}: not TOML: {error}") from error
    if body.get("depthsieve_dataset") != FORMAT:
        raise UsageError(
            f"recipe {path}: depthsieve_dataset must be {FORMAT}; this is no recipe, or one for another version"
        )
    recipe: Recipe = _build(Recipe, body, str(path))
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", recipe.name):
        raise UsageError(f"recipe {path}: name must be of a-z, 0-9, '.', '_' and '-', not {recipe.name!r}")
    if not recipe.images.include:
        raise UsageError(f"recipe {path}: images.include must name at least one pattern, such as '**/*.jpg'")
    for glob in (*recipe.images.include, *recipe.images.exclude):
        try:
            check_pattern(glob)
        except ValueError as error:
            raise UsageError(f"recipe {path}: {error}") from error
    if not 0 <= recipe.images.tolerance < 1:
        raise UsageError(f"recipe {path}: images.tolerance must be a share from 0 to below 1")
    if recipe.images.every is not None and recipe.images.every < 1:
        raise UsageError(f"recipe {path}: images.every must be at least 1; leave it out to take all frames")
    if recipe.images.expected is not None and recipe.images.expected < 1:
        raise UsageError(f"recipe {path}: images.expected must be at least 1; leave it out where nobody knows")
    return recipe


def recipes_folder() -> Path:
    """Where the recipes lie: in the installed package, or at the top of a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "data_manifests"
    return installed if installed.is_dir() else package.parents[1] / "data_manifests"


def _about(count: int) -> str:
    return f"about {count / 1e6:.1f} million" if count >= 1_000_000 else f"{count:,}"


def _build(kind: type[Any], body: dict[str, Any], file: str, prefix: str = "") -> Any:
    """The dataclass whose fields a table holds, all of them checked."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in body:
        if key not in fields:
            near = difflib.get_close_matches(key, set(fields) - set(body), n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(fields)}"
            raise UsageError(f"recipe {file}: there is no key {prefix}{key}{hint}")
    hints = typing.get_type_hints(kind)
    values = {}
    for name, field in fields.items():
        if name in body:
            values[name] = _checked(body[name], hints[name], file, f"{prefix}{name}")
        elif field.default is dataclasses.MISSING:
            raise UsageError(f"recipe {file}: {prefix}{name} is missing")
    return kind(**values)


def _checked(value: Any, wanted: Any, file: str, key: str) -> Any:
    if dataclasses.is_dataclass(wanted):
        if not isinstance(value, dict):
            raise UsageError(f"recipe {file}: {key} must be a table, [{key}]")
        return _build(typing.cast("type[Any]", wanted), value, file, f"{key}.")
    if typing.get_origin(wanted) is Literal:
        choices = typing.get_args(wanted)
        if value not in choices:
            raise UsageError(f"recipe {file}: {key} must be one of {', '.join(map(repr, choices))}, not {value!r}")
        return value
    words, right = _PLAIN[wanted]
    if not right(value):
        raise UsageError(f"recipe {file}: {key} must be {words}, not {value!r}")
    return tuple(value) if isinstance(value, list) else value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_PLAIN: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    str: ("text that is not empty", _is_text),
    int: ("a whole number", _is_whole),
    int | None: ("a whole number", _is_whole),
    float: ("a number", lambda value: _is_whole(value) or isinstance(value, float)),
    tuple[str, ...]: ("a list of texts", lambda value: isinstance(value, list) and all(map(_is_text, value))),
}
