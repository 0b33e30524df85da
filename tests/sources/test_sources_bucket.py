"""The bucket source: the folder source's rules, over ranged calls; keys and servers that mean harm."""

import errno
import io
from pathlib import Path

import numpy as np
import pytest
from hostile import SKIPPED, encoded, exif, make_hostile_folder, photo
from PIL import Image
from s3server import S3Server, every, some_calls
from scanned import Scanned, scanned

from depthsieve.core.errors import IMAGE_FAULTS, ImageRejected, SourceError, UsageError
from depthsieve.core.records import ImageRecord
from depthsieve.images.decode import decode
from depthsieve.sources import Source, bucket, open_source, reopen_source
from depthsieve.storage import objects


def paths(scan: Scanned) -> list[str]:
    return [image.id.partition("/")[2] for image in scan.images]


def reasons(scan: Scanned) -> dict[str, str]:
    return {image.id.partition("/")[2]: image.reason for image in scan.rejected}


def jpeg(width: int = 16, height: int = 12) -> bytes:
    return encoded(photo(width, height), "JPEG")


def upload(s3: S3Server, **files: bytes) -> str:
    name = s3.new_bucket()
    for key, data in files.items():
        s3.put(name, key, data)
    return name


def test_a_bucket_is_scanned_as_the_folder_would_be(s3: S3Server, tmp_path: Path) -> None:
    """All of the hostile folder but its links and what is no file, which a bucket has not."""
    make_hostile_folder(tmp_path / "source")
    name = s3.new_bucket()
    for path in sorted((tmp_path / "source").rglob("*")):
        if path.is_symlink() or not path.is_file():
            if path.is_symlink() or not path.is_dir():
                path.unlink()
            continue
        try:
            key = str(path.relative_to(tmp_path / "source")).encode().decode()
            if bucket._CONTROL.search(key):
                raise ValueError
        except ValueError:  # no key can be called that
            path.unlink()
        else:
            s3.put(name, f"data/{key}", path.read_bytes())
    here, there = open_source(tmp_path / "source"), open_source(f"s3://{name}/data")
    wanted, found = scanned(here), scanned(there)
    assert len(wanted.images) > 20 and len(wanted.rejected) > 20
    assert [(i.id, i.size, i.width, i.height, i.orientation) for i in found.images] == [
        (i.id, i.size, i.width, i.height, i.orientation) for i in wanted.images
    ]
    assert reasons(found) == reasons(wanted)
    assert (found.skipped_hidden, found.skipped_other) == (wanted.skipped_hidden, wanted.skipped_other)
    assert SKIPPED and found.skipped_hidden == 3
    for image in wanted.images:
        assert there.read(image.id) == here.read(image.id)


def test_keys_of_any_letters_are_read(s3: S3Server) -> None:
    """Of macOS (a narrow no-break space in the names of screenshots), of joined emoji, and what does not print."""
    keys = (
        "a\u00a0b",
        "at 9.41.00\u202fAM",
        "\u5199\u3000\u4e00",
        "\U0001f468\u200d\U0001f469",
        "co\u00adop",
        "x\u0085y",
        "\ue000",
    )
    name = upload(s3, **{f"{key}.jpg": jpeg() for key in keys})
    source = open_source(f"s3://{name}")
    scan = scanned(source)
    assert len(scan.images) == len(keys) and scan.rejected == ()
    assert all(source.read(image.id) == jpeg() for image in scan.images)


def test_a_key_in_the_root_that_the_library_will_not_name_says_what_to_do(s3: S3Server) -> None:
    name = upload(s3, **{"a.jpg": jpeg(), "b\tc.jpg": jpeg()})
    with pytest.raises(SourceError, match="rename that key, or name a list of URLs") as caught:
        scanned(open_source(f"s3://{name}"))
    assert "\n" not in str(caught.value)


def test_a_record_says_what_the_listing_says(s3: S3Server) -> None:
    name = upload(s3, **{"a/turned.jpg": (data := encoded(photo(30, 20), "JPEG", exif=exif(6)))})
    (image,) = scanned(open_source(f"s3://{name}", "street")).images
    assert image == ImageRecord("street/a/turned.jpg", len(data), image.mtime_ns, 20, 30, 6)
    assert image.mtime_ns % 1_000_000 == 0 and image.mtime_ns > 1.5e18


def test_only_headers_are_fetched(s3: S3Server) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "PNG")
    name = upload(s3, **{f"{number}.png": data for number in range(20)})
    sent: list[str] = []
    with s3.failing(lambda environ: sent.append(environ.get("HTTP_RANGE", "all"))):
        scan = scanned(open_source(f"s3://{name}/"))
    assert [(image.width, image.height) for image in scan.images] == [(1500, 1500)] * 20
    fetched = [span for span in sent if span != "all"]
    assert fetched == [f"bytes=0-{bucket.FIRST_BYTES - 1}"] * 20
    assert len(sent) - len(fetched) <= 4  # listings


def test_a_header_behind_the_pixels_is_found(s3: S3Server) -> None:
    """TIFF directories and a WebP's EXIF stand at the end."""
    random = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    tiff, webp = io.BytesIO(), io.BytesIO()
    Image.fromarray(random).save(tiff, "TIFF")
    Image.fromarray(random).save(webp, "WEBP", lossless=True, exif=exif(6))
    assert min(len(tiff.getvalue()), len(webp.getvalue())) > 4 * bucket.FIRST_BYTES
    name = upload(s3, **{"a.tif": tiff.getvalue(), "b.webp": webp.getvalue()})
    scan = scanned(open_source(f"s3://{name}"))
    assert [(i.width, i.height, i.orientation) for i in scan.images] == [(600, 400, 1), (400, 600, 6)]


def test_the_root_is_the_url_and_opens_again(s3: S3Server) -> None:
    name = upload(s3, **{"a b/50%20/one.jpg": jpeg(), "a b/50%20x/two.jpg": jpeg()})
    source = open_source(f"s3://{name}/a b/50%20/")
    assert source.root == f"s3://{name}/a b/50%20" and not source.is_one_file
    scan = scanned(source)
    assert paths(scan) == ["one.jpg"]
    again = reopen_source("default", source.root)
    assert again.read("default/one.jpg") == jpeg() and repr(again) == repr(source)


def test_a_single_object_is_its_folders_only_image(s3: S3Server) -> None:
    name = upload(s3, **{"photos/upload": jpeg(20, 10), "photos/other.jpg": jpeg(), "top.jpg": jpeg()})
    source = open_source(f"s3://{name}/photos/upload", "one")
    assert (source.root, source.is_one_file) == (f"s3://{name}/photos", True)
    (image,) = scanned(source).images
    assert (image.id, image.width, image.height) == ("one/upload", 20, 10)
    assert reopen_source("one", source.root).read(image.id) == jpeg(20, 10)
    assert open_source(f"s3://{name}/top.jpg").root == f"s3://{name}"


def test_known_images_are_counted_and_not_fetched(s3: S3Server) -> None:
    name = upload(s3, **{f"{letter}.jpg": jpeg() for letter in "abc"})
    source = open_source(f"s3://{name}")
    known = scanned(source).images
    s3.calls.clear()
    scan = scanned(source, (known[0], known[2]))
    assert paths(scan) == ["b.jpg"] and scan.known == 2
    assert [path for _, path in s3.calls if path.endswith(".jpg")] == [f"/{name}/b.jpg"]


def test_every_object_is_told_once(s3: S3Server) -> None:
    name = upload(s3, **{"a.jpg": jpeg(), "b.txt": b"", "c.png": b""})
    scan = scanned(open_source(f"s3://{name}"))
    assert (paths(scan), reasons(scan), scan.skipped_other) == (["a.jpg"], {"c.png": "empty file"}, 1)


@pytest.mark.parametrize("bad", ["sub/../private.jpg", "sub//double.jpg", "sub/./one.jpg"])
def test_keys_that_are_no_paths_cost_their_folder_and_are_named(s3: S3Server, bad: str) -> None:
    files = {"a.jpg": jpeg(), "other/b.jpg": jpeg(), "private.jpg": jpeg(), bad: jpeg(), "sub/c.jpg": jpeg()}
    scan = scanned(open_source(f"s3://{upload(s3, **files)}"))
    assert paths(scan) == ["a.jpg", "other/b.jpg", "private.jpg"]
    (reason,) = reasons(scan).items()
    assert reason[0] == "sub/" and "rename that" in reason[1]


def test_odd_keys_are_images_like_others(s3: S3Server) -> None:
    keys = [
        "50%.jpg",
        "a%2Fb.jpg",
        "a?b#c.jpg",
        "back\\slash.jpg",
        "caf\u00e9.jpg",
        "cafe\u0301.jpg",
        "x::y.jpg",
        "a b.jpg",
    ]
    source = open_source(f"s3://{upload(s3, **{key: jpeg() for key in keys}, **{'marker.jpg/': b''})}")
    scan = scanned(source)
    assert len(scan.images) == len(keys)
    assert {"50%25.jpg", "a%252Fb.jpg", "x%3A%3Ay.jpg", "a?b#c.jpg"} <= set(paths(scan))
    assert reasons(scan) == {"marker.jpg": "empty file"}
    for image in scan.images:
        assert source.read(image.id) == jpeg()


@pytest.mark.parametrize(
    "image_id",
    ["default/../a.jpg", "default//a.jpg", "default/./a.jpg", "default/a.jpg/", "default/%61.jpg", "default/a%0A.jpg",
     "default/%FF.jpg", "default/", "default", "other/a.jpg", "", "default/a%00.jpg"],
)  # fmt: skip
def test_no_id_leads_out_of_the_root(s3: S3Server, image_id: str) -> None:
    name = upload(s3, **{"a.jpg": jpeg(), "root/a.jpg": jpeg()})
    with pytest.raises(SourceError):
        open_source(f"s3://{name}/root").read(image_id)


def test_what_is_not_there_is_refused_in_one_line(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "FIRST_CONTACT_S", 1.0)
    name = upload(s3, **{"a.jpg": jpeg()})
    for url, words in (
        (f"s3://{name}/nothing", "no object of that name or below it"),
        (f"s3://{s3.new_bucket()}", "no object of that name or below it"),
        ("s3://no-such-bucket/a", "there is no bucket 'no-such-bucket'"),
    ):
        with pytest.raises(SourceError, match=words) as caught:
            open_source(url)
        assert "\n" not in str(caught.value)
    with s3.failing(lambda _: "403"), pytest.raises(SourceError, match="access denied"):
        open_source(f"s3://{name}")
    with pytest.raises(UsageError, match="names no bucket"):
        open_source("s3://")
    with pytest.raises(UsageError, match="cannot name a source"):
        open_source(f"s3://{name}", "a/b")


def opened(s3: S3Server) -> Source:
    source = open_source(f"s3://{upload(s3, **{'a.jpg': jpeg()})}")
    source.read("default/a.jpg")
    return source


def test_faults_of_an_image_and_of_the_server_are_told_apart(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the image's own may be committed as its failure."""
    monkeypatch.setattr(objects, "PATIENCE_S", 1.0)
    source = opened(s3)
    with pytest.raises(FileNotFoundError) as gone:
        source.read("default/gone.jpg")
    assert gone.value.errno == errno.ENOENT and source.is_there()
    with s3.failing(lambda _: "403"), pytest.raises(PermissionError) as denied:
        source.read("default/a.jpg")
    assert denied.value.errno == errno.EACCES
    for what in ("503", "reset"):
        with s3.failing(lambda _, what=what: what):
            with pytest.raises(OSError) as away:
                source.read("default/a.jpg")
            assert away.value.errno not in IMAGE_FAULTS
            assert not source.is_there()
            with pytest.raises(SourceError):
                scanned(source)
    assert not reopen_source("default", "s3://no-such-bucket/a").is_there()
    assert not reopen_source("default", f"{source.root}/nothing").is_there()


def test_a_denied_object_is_rejected_and_costs_nobody_else(s3: S3Server) -> None:
    name = upload(s3, **{"a.jpg": jpeg(), "closed.jpg": jpeg()})
    with s3.failing(lambda environ: "403" if "closed" in environ["PATH_INFO"] else None):
        scan = scanned(open_source(f"s3://{name}"))
    assert paths(scan) == ["a.jpg"] and reasons(scan) == {"closed.jpg": "permission denied"}


def test_a_scan_outlives_a_server_that_fails(s3: S3Server) -> None:
    source = open_source(f"s3://{upload(s3, **{f'{number}.jpg': jpeg() for number in range(30)})}")
    with s3.failing(some_calls(0.2, seed=3)):
        assert len(scanned(source).images) == 30
    with s3.failing(every("GET", first=2, what="lost")):
        assert decode(source.read("default/0.jpg")).rgb_HW3.shape == (12, 16, 3)


def test_an_object_too_large_to_read_is_rejected_unread(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "MAX_FILE_BYTES", 100)
    source = open_source(f"s3://{upload(s3, **{'a.jpg': jpeg()})}")
    size = f"{len(jpeg()):,} bytes, more than the 100 allowed"
    assert reasons(scanned(source)) == {"a.jpg": size}
    with pytest.raises(ImageRejected, match=size):
        source.read("default/a.jpg")
