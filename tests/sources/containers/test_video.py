"""Frames of videos: which there are, that they are the frames of the video whoever reads them, and what is refused."""

import os
import pickle
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from videos import FIRST, FRAMES, HEIGHT, UNEVEN, WIDTH, number_of, picture, write_all, write_video

from depthsieve.core.errors import ImageRejected, SourceError, UsageError
from depthsieve.core.frames import ALL_FRAMES, FrameChoice, is_frame
from depthsieve.core.records import ImageRecord, RejectedImage
from depthsieve.images.decode import decode
from depthsieve.sources import Listed, Passed, Source, open_source
from depthsieve.sources.containers import video

WHOLE = ("constant", "uneven", "turned", "deep", "b-frames", "webm", "avi")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(tmp_path_factory.mktemp("videos") / "films")


def frames_of(source: Source, choice: FrameChoice = ALL_FRAMES) -> list[str]:
    return [one.id for one in source.listing(Passed(frames=choice)) if isinstance(one, Listed)]


def refused(source: Source) -> dict[str, str]:
    return {one.id: one.reason for one in source.listing(Passed()) if isinstance(one, RejectedImage)}


@pytest.mark.parametrize("name", WHOLE)
def test_each_frame_is_the_one_of_its_number(videos: dict[str, Path], name: str) -> None:
    path = videos[name]
    source = open_source(path)
    ids = frames_of(source)
    assert ids == [f"default/{path.name}::{number:06d}" for number in range(FRAMES)]
    found = source.look(Listed(ids[3], 0, 0))
    assert isinstance(found, ImageRecord)
    upright = (HEIGHT, WIDTH) if name == "turned" else (WIDTH, HEIGHT)
    assert (found.width, found.height, found.orientation) == (*upright, 1)
    for number, image in enumerate(ids):
        data = source.read(image)
        assert len(data) == found.size
        rgb_HW3 = decode(data).rgb_HW3
        if name == "turned":  # a quarter turn to the left makes it upright
            rgb_HW3 = np.rot90(rgb_HW3, -1)
        assert number_of(rgb_HW3) == number
        assert np.abs(rgb_HW3.astype(int) - picture(number)).mean() < (60 if name == "deep" else 12)


@pytest.mark.parametrize("name", [*WHOLE, "cut"])
def test_frames_are_those_of_the_ffmpeg_command(videos: dict[str, Path], name: str) -> None:
    command = shutil.which("ffmpeg")
    if command is None:
        pytest.skip("no ffmpeg on this machine to compare with")
    filters = "scale=flags=bicubic+accurate_rnd+full_chroma_int+bitexact,format=rgb24"
    raw = ["-vf", filters, "-vsync", "passthrough", "-f", "rawvideo", "-"]
    done = subprocess.run([command, "-nostdin", "-v", "quiet", "-i", str(videos[name]), *raw], capture_output=True)
    source = open_source(videos[name])
    ours_N = [decode(source.read(image)).rgb_HW3 for image in frames_of(source)]
    theirs_N = np.frombuffer(done.stdout, np.uint8).reshape(-1, *ours_N[0].shape)
    assert len(ours_N) == len(theirs_N)
    most = 2 if name == "turned" else 0  # it turns before it makes RGB
    assert np.abs(np.stack(ours_N).astype(int) - theirs_N).max() <= most


@pytest.mark.parametrize("name", ["b-frames", "avi", "webm"])
def test_frames_do_not_depend_on_the_order_they_are_read_in(videos: dict[str, Path], name: str) -> None:
    source = open_source(videos[name])
    ids = frames_of(source)
    in_order = [source.read(image) for image in ids]
    again = pickle.loads(pickle.dumps(open_source(videos[name])))
    shuffled = random.Random(1).sample(range(FRAMES), FRAMES)
    assert [again.read(ids[number]) for number in shuffled] == [in_order[number] for number in shuffled]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(source.read, ids)) == in_order
    stretches = [ids[start::7] for start in range(7)] + [ids[20:], ids[:20]]
    with ThreadPoolExecutor(9) as pool:
        read_S = list(pool.map(lambda some: [again.read(one) for one in some], stretches))
    for stretch, read in zip(stretches, read_S, strict=True):
        assert read == [in_order[ids.index(one)] for one in stretch]


def test_frames_in_order_are_decoded_once(videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    next_packet = video._Reading._next_packet
    monkeypatch.setattr(video._Reading, "_next_packet", lambda self: decoded.append(self._next) or next_packet(self))
    source = open_source(videos["b-frames"])
    for image in frames_of(source):
        source.read(image)
    assert decoded == list(range(FRAMES))  # every packet once, and none is sought


def test_a_frame_of_a_long_video_is_sought(videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    next_packet = video._Reading._next_packet
    monkeypatch.setattr(video._Reading, "_next_packet", lambda self: decoded.append(self._next) or next_packet(self))
    source = open_source(videos["constant"])
    source.read(frames_of(source)[0])
    decoded.clear()
    source.read(frames_of(source)[38])
    assert len(decoded) < 5  # the last key frame is number 36


def test_every_and_fps_choose_frames_by_number_and_by_time(videos: dict[str, Path]) -> None:
    source = open_source(videos["uneven"])
    assert [int(one[-6:]) for one in frames_of(source, FrameChoice(every=7))] == [0, 7, 14, 21, 28, 35]
    chosen = [int(one[-6:]) for one in frames_of(source, FrameChoice(fps=Fraction(5)))]
    shown = [max(n for n in range(FRAMES) if UNEVEN[n] <= tick) for tick in range(0, UNEVEN[-1] + 40, 200)]
    assert chosen == sorted(set(shown))
    assert 10 in chosen and 11 not in chosen  # number 10 is shown for 0.4 s


def test_a_choice_holds_another_only_where_it_leaves_no_frame_out() -> None:
    times = [0, 40, 90, 160, 161, 200, 333, 400, 1000]
    choices = [FrameChoice.of(1, None), FrameChoice.of(2, None), FrameChoice.of(4, None), FrameChoice.of(6, None)]
    choices += [FrameChoice.of(None, rate) for rate in (1, 2.5, 5, 12, 100)]
    for one in choices:
        assert one is not None and FrameChoice.parse(str(one)) == one
        for other in choices:
            assert other is not None
            taken, before = (set(each.pick(times, Fraction(1, 1000))) for each in (one, other))
            if one.holds(other):
                assert taken >= before
    assert FrameChoice(2).holds(FrameChoice(6)) and not FrameChoice(4).holds(FrameChoice(6))
    assert FrameChoice(fps=Fraction(5)).holds(FrameChoice(fps=Fraction(5, 2)))
    assert ALL_FRAMES.holds(FrameChoice(fps=Fraction(5)))
    assert FrameChoice(fps=Fraction(5)).pick([7], Fraction(1, 10)) == [0]


@pytest.mark.parametrize(("every", "fps"), [(0, None), (True, None), (None, 0.0), (None, float("nan")), (2, 2.0)])
def test_a_choice_that_is_none_is_refused(every: int | None, fps: float | None) -> None:
    with pytest.raises(UsageError, match=r"every|fps"):
        FrameChoice.of(every, fps)


def test_what_is_wrong_with_a_file_is_said_and_good_frames_are_taken(videos: dict[str, Path]) -> None:
    source = open_source(videos["cut"].parent)
    reasons = refused(source)
    assert reasons == {
        "default/cut.mp4": "cut off: 20 of the 40 frames that it declares are there, and are taken",
        "default/empty.mp4": "empty file",
        "default/liar.mp4": "damaged or cut-off video without a frame that can be decoded: it declares 40",
    }
    ids = frames_of(source)
    assert sum("cut.mp4" in one for one in ids) == 20 and len(ids) == 20 + FRAMES * len(WHOLE)
    for number, image in enumerate(one for one in ids if "cut.mp4" in one):
        assert number_of(decode(source.read(image)).rgb_HW3) == number


def test_only_sound_is_no_video(videos: dict[str, Path]) -> None:
    passed = Passed()
    assert not [one for one in open_source(videos["sound"].parent).listing(passed) if "sound" in one.id]
    assert passed.other == 1
    assert refused(open_source(videos["sound"])) == {"default/sound.mp4": "no video in it, only sound or other data"}


def packets_of(path: Path) -> list[tuple[int, int]]:
    """Where the packets lie, and their bytes."""
    import av

    with av.open(str(path)) as file:
        return [(one.pos, one.size) for one in file.demux(video=0) if one.size]


@pytest.mark.parametrize(("frame", "skipped", "hurt"), [(15, 5, 10**6), (12, 300, 30)], ids=["gone", "overwritten"])
def test_a_damaged_frame_costs_only_those_that_lean_on_it(
    videos: dict[str, Path], tmp_path: Path, frame: int, skipped: int, hurt: int
) -> None:
    at, size = packets_of(videos["constant"])[frame]
    data = bytearray(videos["constant"].read_bytes())
    for place in range(at + skipped, at + min(size, skipped + hurt)):
        data[place] = data[place] ^ 0x5A if hurt < size else 0
    (tmp_path / "hurt.mp4").write_bytes(data)
    source, sound = open_source(tmp_path / "hurt.mp4"), open_source(videos["constant"])
    lost = {}
    for image, whole in zip(frames_of(source), frames_of(sound), strict=True):
        try:
            assert source.read(image) == sound.read(whole)
        except ImageRejected as error:
            lost[int(image[-6:])] = str(error)
    assert list(lost) == list(range(frame, 24))  # to the next key frame
    assert lost[frame].startswith("its data are damaged") and lost[16].startswith("stands behind damage")


def test_a_file_that_is_cut_between_two_frames_is_told_from_a_whole_one(
    videos: dict[str, Path], tmp_path: Path
) -> None:
    whole = write_video(tmp_path / "whole.mp4", container_options={"movflags": FIRST}, options={"bf": "0"})
    at, size = packets_of(whole)[7]
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: at + size])
    source = open_source(cut)
    assert len(frames_of(source)) == 8
    words = "cut off: 8 of the 40 frames that it declares are there, and are taken"
    assert refused(source) == {"default/cut.mp4": words}
    assert refused(open_source(whole)) == {}


def test_a_playlist_that_is_called_a_video_opens_no_other_file(videos: dict[str, Path], tmp_path: Path) -> None:
    other = videos["avi"]
    lists = {"list.mp4": f"#EXTM3U\nfile://{other}\n", "cat.mkv": f"ffconcat version 1.0\nfile {other}\n"}
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        (reason,) = refused(open_source(tmp_path / name)).values()
        assert reason.startswith("no video: it does not begin as")


@pytest.mark.parametrize("place", ["1", "0000001", "000040", "-00001", "a.jpg", "000001::000001"])
def test_no_other_place_is_read(videos: dict[str, Path], place: str) -> None:
    with pytest.raises(SourceError, match="has no frame"):
        open_source(videos["avi"]).read(f"default/old.avi::{place}")


def test_bytes_that_were_flipped_never_end_a_scan(videos: dict[str, Path], tmp_path: Path) -> None:
    rng = random.Random(7)
    for trial in range(12):
        data = bytearray(videos[rng.choice(["b-frames", "webm", "avi"])].read_bytes())
        for _ in range(16):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / f"{trial}.mp4").write_bytes(data)
    source = open_source(tmp_path)
    for one in source.listing(Passed()):
        if isinstance(one, Listed) and one.id.endswith("0"):
            try:
                decode(source.read(one.id))
            except (ImageRejected, SourceError) as error:
                assert str(error)


def test_names_that_are_no_text_and_ids_of_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", "mpeg4", frames=3, options={"bf": "0"})
    odd = os.fsencode(tmp_path) + b"/fi\xfflm '::1\n.avi"
    os.rename(path, odd)  # noqa: PTH104 (bytes)
    source = open_source(tmp_path)
    ids = frames_of(source)
    assert ids == [f"default/fi%FFlm '%3A%3A1%0A.avi::{number:06d}" for number in range(3)]
    assert [number_of(decode(source.read(image)).rgb_HW3) for image in ids] == [0, 1, 2]
    assert all(map(is_frame, ids))
    assert not is_frame("default/a.mp4.tar::b.jpg") and not is_frame("default/a.mp4") and not is_frame("a.zip::000001")


def test_hdr_and_deep_colours_are_told_of(videos: dict[str, Path]) -> None:
    passed = Passed(frames=FrameChoice(every=10))
    list(open_source(videos["deep"].parent).listing(passed))
    counts = passed.videos
    assert (counts.count, counts.frames, counts.taken, counts.deep, counts.hdr) == (8, 300, 30, 1, 1)
    lines = counts.notes(passed.frames)
    assert lines[0] == "8 videos with 300 frames, of which --every 10 takes 30"
    assert "1 video in HDR (PQ or HLG), such as deep.mkv" in lines[1] and "more than 8 bits" in lines[2]


def test_without_pyav_a_line_says_what_to_install(videos: dict[str, Path], tmp_path: Path) -> None:
    script = """
import sys
sys.modules["av"] = None
from depthsieve.sources import Passed, open_source
print(*(one.reason for one in open_source(sys.argv[1]).listing(Passed())), sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", script, videos["avi"]], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "videos are read by PyAV, which is not installed: pip install 'depthsieve[video]'"


def test_a_file_that_ends_its_process_is_named_and_costs_no_other(
    videos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug, films = tmp_path / "bug", tmp_path / "films"
    bug.mkdir()
    films.mkdir()
    for name in ("a.avi", "crash.avi", "z.avi"):
        shutil.copy(videos["avi"], films / name)
    (bug / "sitecustomize.py").write_text(
        "import os, signal\n"
        "import depthsieve.sources.containers.video as video\n"
        "facts_of = video.facts_of\n"
        "def crashes(path, whole):\n"
        "    if b'crash' in path:\n"
        "        os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return facts_of(path, whole)\n"
        "video.facts_of = crashes\n"
    )
    video.HELPER.close()  # one with the bug is started
    monkeypatch.setenv("PYTHONPATH", f"{bug}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    try:
        source = open_source(films)
        assert refused(source) == {"default/crash.avi": "ends the process that reads it (signal 11, SIGSEGV)"}
        assert len(frames_of(source)) == 2 * FRAMES
    finally:
        video.HELPER.close()
