"""The options of `label` and `plan`: their signatures, and what a later run takes from the store."""

import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any

import huggingface_hub
import pytest
from labelled import decided_bytes, small_teacher, write_photos
from teachers_builders import GLPN_PROCESSOR, glpn_config, save

import depthsieve
from depthsieve.core.errors import StoreMismatch, TeacherError, UsageError
from depthsieve.core.settings import declared
from depthsieve.planning.options import LabelOptions
from depthsieve.store import open_store

OWN = {
    depthsieve.label: {"source", "store", "progress", "stop"},
    depthsieve.plan: {"source", "store", "progress", "write", "trial"},
}
"""Arguments that are no options of the run."""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_teacher(tmp_path_factory.mktemp("teacher") / "t"))


def label(source: Path, store: Path, **options: Any) -> depthsieve.LabelSummary:
    return depthsieve.label(source, store, **{"progress": False, "batch_size": 2, "threads": 1} | options)


@pytest.mark.parametrize("function", OWN)
def test_the_signature_has_the_options_with_their_types_and_defaults(function: Callable[..., Any]) -> None:
    parameters = {
        name: one for name, one in inspect.signature(function).parameters.items() if name not in OWN[function]
    }
    options = {one.name: one for one in declared(LabelOptions)}
    if function is depthsieve.plan:
        del options["part"]
    assert parameters.keys() == options.keys()
    hints = typing.get_type_hints(function)
    for name, parameter in parameters.items():
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default == options[name].default
        kinds = {*(typing.get_args(hints[name]) or [hints[name]])} - {NoneType}
        if options[name].choices:
            kinds = {one for kind in kinds for one in typing.get_args(kind) or [kind]}
            assert kinds == {*options[name].choices}
        else:
            kind = options[name].kind
            assert kinds == ({*typing.get_args(kind)} - {...} if typing.get_origin(kind) is tuple else {kind})


def test_every_option_is_explained() -> None:
    explained = inspect.getdoc(depthsieve.label) or ""
    for name in inspect.signature(depthsieve.label).parameters:
        assert f"\n    {name}: " in explained
    for name in OWN[depthsieve.plan] - {"source", "store"}:
        assert f"\n    {name}: " in (inspect.getdoc(depthsieve.plan) or "")


def test_an_unknown_option_is_a_type_error_as_everywhere_in_python(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        depthsieve.label(tmp_path, tmp_path / "store", colour="red")  # type: ignore[call-arg]


def test_a_later_run_need_not_say_again_how_the_store_is_labelled(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 2), tmp_path / "store"
    how = {"teacher": teacher, "size": 84, "dtype": "bfloat16", "signals": "flip,edges", "encoding": "small"}
    first = label(photos, store, **how, max_tokens=9000, oversize="shrink")
    assert not any("was begun" in note for note in first.notes)
    write_photos(photos, 1, first=2)
    grown = label(photos, store)
    assert (grown.labelled_now, grown.labelled) == (1, 3)
    assert grown.notes == (
        f"as {store} was begun: --teacher {teacher} --signals edges,flip --dtype bfloat16 --max-tokens 9000 "
        "--oversize shrink --size 84 --encoding small",
    )
    before, after = (generation.teacher for generation in open_store(store).generations())
    assert before == after
    whole = tmp_path / "whole"
    label(photos, whole, **how, max_tokens=9000, oversize="shrink")
    for image in open_store(whole).images:
        found, expected = (open_store(one).label(image).depth for one in (store, whole))
        assert (found == expected).all()


def test_a_store_that_was_planned_alone_is_not_called_labelled(tmp_path: Path) -> None:
    photos, store = write_photos(tmp_path / "photos", 2), tmp_path / "store"
    there = small_teacher(tmp_path / "there")
    how = {"batch_size": 2, "threads": 1, "shard_size": 1, "progress": False}
    depthsieve.plan(photos, store, teacher=str(there), write=True, trial=False, **how)
    assert label(photos, store, part="1/2").notes == (f"as {store} was begun: --teacher {there}",)
    assert label(photos, store, part="2/2").notes == (f"as {store} was begun: --teacher {there}",)
    depthsieve.plan(photos, tmp_path / "other", teacher=str(there), write=True, trial=False, **how)
    there.rename(tmp_path / "elsewhere")
    with pytest.raises(TeacherError, match=f"{there}.*; {tmp_path / 'other'} was begun with it: name where it is"):
        label(photos, tmp_path / "other")


def test_without_a_connection_and_a_teacher_the_default_is_named_and_what_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    photos = write_photos(tmp_path / "photos", 1)
    with pytest.raises(TeacherError) as caught:
        label(photos, tmp_path / "store")
    line = str(caught.value)
    assert line.startswith(
        "no --teacher is given, and the default cannot be had: teacher 'depth-anything-v2-small' (depth-anything/"
    )
    assert line.endswith("or use the embedded --teacher tiny, which needs no download") and "\n" not in line
    with pytest.raises(TeacherError, match=r"^teacher 'depth-anything-v2-small'"):
        label(photos, tmp_path / "store", teacher="depth-anything-v2-small")
    assert not (tmp_path / "store").exists()


def test_what_is_as_by_default_is_not_told(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 1), tmp_path / "store"
    label(photos, store, teacher=teacher)
    assert label(photos, store, teacher=teacher).notes == ()
    assert label(photos, store).notes == (f"as {store} was begun: --teacher {teacher}",)


def test_another_value_is_refused_with_both(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 1), tmp_path / "store"
    label(photos, store, teacher=teacher, size=84, signals="edges")
    before = decided_bytes(store)
    with pytest.raises(StoreMismatch, match=r"size: \[84, 84\] in the store, \[70, 70\] now"):
        label(photos, store, size=70)
    with pytest.raises(StoreMismatch, match=r'signals: \["edges"\] in the store, \["flip"\] now'):
        label(photos, store, signals="flip")
    with pytest.raises(StoreMismatch, match=r"weights_digest: .* in the store, .* now"):
        label(photos, store, teacher="tiny-v1")
    assert decided_bytes(store) == before


def test_a_second_teacher_is_remembered_too(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 1), tmp_path / "store"
    label(photos, store, teacher=teacher, second_teacher="tiny-v1", signals="edges")
    write_photos(photos, 1, first=1)
    for options in ({}, {"signals": "edges"}, {"teacher": teacher}):
        assert label(photos, store, **options).labelled == 2
    assert open_store(store).spec.signals == ("edges", "teachers")


def test_what_is_known_of_a_teacher_is_not_asked_of_another(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 1), tmp_path / "store"
    label(photos, store, teacher=teacher, size=84)
    fixed = str(save(tmp_path / "glpn", glpn_config(), GLPN_PROCESSOR))
    with pytest.raises(
        StoreMismatch, match=r"labels of disparity, and teacher .* predicts depth"
    ):  # not that it takes no size
        label(photos, store, teacher=fixed)


def test_a_teacher_that_has_moved_is_named_and_so_is_the_way_out(tmp_path: Path) -> None:
    photos, store = write_photos(tmp_path / "photos", 1), tmp_path / "store"
    there = small_teacher(tmp_path / "there")
    label(photos, store, teacher=str(there))
    there.rename(tmp_path / "elsewhere")
    with pytest.raises(TeacherError, match=rf"{there}.*was begun with it.*--teacher") as caught:
        label(photos, store)
    assert "\n" not in str(caught.value)
    assert label(photos, store, teacher=str(tmp_path / "elsewhere")).labelled == 1


def test_a_fused_store_is_refused_before_a_teacher_is_looked_for(tmp_path: Path, teacher: str) -> None:
    photos = write_photos(tmp_path / "photos", 1)
    for name, size in (("a", 70), ("b", 84)):
        label(photos, tmp_path / name, teacher=teacher, size=size)
    depthsieve.fuse([tmp_path / "a", tmp_path / "b"], tmp_path / "fused", progress=False)
    with pytest.raises(StoreMismatch, match="holds labels of kind 'fused'"):
        label(photos, tmp_path / "fused", teacher="no/such-model")


def test_a_plan_remembers_as_a_run_does(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 2), tmp_path / "store"
    depthsieve.plan(photos, store, teacher=teacher, size=84, batch_size=2, threads=1, write=True, trial=False)
    assert label(photos, store, part="1/1").labelled == 2
    write_photos(photos, 1, first=2)
    planned = depthsieve.plan(photos, store, batch_size=2, threads=1, trial=False, progress=False)
    assert planned.images == 1


@pytest.mark.parametrize("signals", ["flip,none", "none,edges", "flop", "", "flip,,edges"])
def test_signals_that_make_no_sense_are_refused_at_once(tmp_path: Path, signals: str) -> None:
    with pytest.raises(UsageError, match="signal"):
        label(tmp_path / "nowhere", tmp_path / "store", teacher="tiny", signals=signals)
