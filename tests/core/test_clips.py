"""Which clip an image is a frame of, and in which order frames follow one another."""

import pytest

from depthsieve.core.clips import Clips, clip_of, in_time


@pytest.mark.parametrize(
    ("image_id", "clip"),
    [
        ("default/clip.mp4::000120", "default/clip.mp4"),
        ("other/a b/CLIP.MKV::0001200", "other/a b/CLIP.MKV"),
        ("default/run 1/frame9.png", "default/run 1"),
        ("default/9.png", "default"),
        ("default/a.tar::b/9.png", "default/a.tar::b"),
        ("default/a/a.tar::9.png", "default/a/a.tar"),
        ("default/a.h5::/images::00000009", "default/a.h5::/images"),
        ("other/run/9.png", None),
        ("other/clip.mp4.tar::9.png", None),
    ],
)
def test_a_clip_is_a_video_or_a_folder_of_a_sequence(image_id: str, clip: str | None) -> None:
    assert clip_of(image_id, {"default"}) == clip


def test_numbers_count_as_such_in_the_order_of_frames() -> None:
    names = ["f1.png", "f9.png", "f09b.png", "f10.png", "f10_2.png", "f10_10.png", "g0.png", f"g{'9' * 5000}.png"]
    assert sorted(set(names), key=in_time) == names
    assert in_time("f09") < in_time("f9") < in_time("f10")


def test_clips_are_sorted_and_hold_their_frames_in_time() -> None:
    ids = ["b/2.png", "a/v.mp4::000010", "b/10.png", "a/still.jpg", "b/1.png", "a/v.mp4::000002", "b/deeper/3.png"]
    assert Clips(ids, {"b"}) == {
        "a/v.mp4": ["a/v.mp4::000002", "a/v.mp4::000010"],
        "b": ["b/1.png", "b/2.png", "b/10.png"],
        "b/deeper": ["b/deeper/3.png"],
    }
    assert list(Clips(ids)) == ["a/v.mp4"]


def test_a_frame_has_its_number_in_the_video_or_its_place_in_the_folder() -> None:
    clips = Clips(["b/2.png", "a/v.mp4::000010", "b/10.png", "a/still.jpg", "a/v.mp4::1000002", "b/7.png"], {"b"})
    assert [*clips.numbers("a/v.mp4")] == [10, 1000002] and [*clips.numbers("b")] == [0, 1, 2]
    assert clips.of("b/new/1.png") == "b/new" and clips.of("a/still.jpg") is None
