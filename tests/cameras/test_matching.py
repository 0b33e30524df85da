"""Labels and photos of a reconstruction belong together by name."""

from depthsieve.cameras.matching import match_names


def matched(photos: list[str], ids: list[str]) -> dict[str, str]:
    matches = match_names(photos, ids)
    assert {photo: image_id for image_id, photo in matches.photo_of.items()} == matches.label_of
    return dict(matches.label_of)


def test_the_labelled_folder_may_lie_above_or_below_the_reconstructions() -> None:
    assert matched(["cam1/a.jpg"], ["s/site/cam1/a.jpg"]) == {"cam1/a.jpg": "s/site/cam1/a.jpg"}
    assert matched(["site/cam1/a.jpg"], ["s/a.jpg"]) == {"site/cam1/a.jpg": "s/a.jpg"}
    assert matched(["./images/a.jpg"], ["s/a.jpg"]) == {"./images/a.jpg": "s/a.jpg"}
    assert matched(["xa.jpg"], ["s/a.jpg"]) == {}
    assert matched(["cam1/a.jpg"], ["s/cam2/a.jpg"]) == {}


def test_the_nearest_name_wins() -> None:
    both = ["s/a.jpg", "s/cam1/a.jpg", "s/site/cam1/a.jpg"]
    assert matched(["cam1/a.jpg"], both) == {"cam1/a.jpg": "s/cam1/a.jpg"}
    assert matched(["x/cam1/a.jpg"], both[:2]) == {"x/cam1/a.jpg": "s/cam1/a.jpg"}
    assert matched(["a.jpg", "cam1/a.jpg"], both[:2]) == {"a.jpg": "s/a.jpg", "cam1/a.jpg": "s/cam1/a.jpg"}


def test_another_suffix_will_do_where_there_is_no_equal_one() -> None:
    assert matched(["a.png"], ["s/a.jpg"]) == {"a.png": "s/a.jpg"}
    assert matched(["a.png"], ["s/a.jpg", "s/a.png"]) == {"a.png": "s/a.png"}
    assert matched(["a.png", "a.jpg"], ["s/a.jpg"]) == {"a.jpg": "s/a.jpg"}
    assert matched(["a.b.png"], ["s/a.png", "s/a.b.jpg"]) == {"a.b.png": "s/a.b.jpg"}


def test_what_is_not_clear_is_told_and_not_guessed() -> None:
    matches = match_names(["a.jpg"], ["s/x/a.jpg", "s/y/a.jpg", "t/b.jpg"])
    assert matches.label_of == {}
    assert matches.ambiguous == {"a.jpg": ("s/x/a.jpg", "s/y/a.jpg")}
    matches = match_names(["x/a.jpg", "y/a.jpg"], ["s/a.jpg"])
    assert matches.label_of == {}
    assert matches.ambiguous == {"x/a.jpg": ("s/a.jpg",), "y/a.jpg": ("s/a.jpg",)}
    assert match_names(["a.jpg"], ["s/a.jpg", "t/a.jpg"]).ambiguous == {"a.jpg": ("s/a.jpg", "t/a.jpg")}


def test_ids_are_decoded_and_unicode_forms_are_one() -> None:
    assert matched(["100%.jpg"], ["s/100%25.jpg"]) == {"100%.jpg": "s/100%25.jpg"}
    assert matched(["cafe\u0301.jpg"], ["s/caf\u00e9.jpg"]) == {"cafe\u0301.jpg": "s/caf\u00e9.jpg"}
    assert matched(["b/c.jpg"], ["s/a.tar::b/c.jpg"]) == {"b/c.jpg": "s/a.tar::b/c.jpg"}
