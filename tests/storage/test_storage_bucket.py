"""What is true of an object store alone: faults, first contact, words, credentials, forks."""

import datetime
import errno
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
import zarr
from s3server import KEY_ID, NOWHERE, SECRET, S3Server, every, some_calls

from depthsieve.core.errors import UsageError
from depthsieve.storage import Root, is_url, objects, open_root
from depthsieve.storage.local import list_folder


@pytest.fixture
def root(s3: S3Server) -> Root:
    root = open_root(f"s3://{s3.new_bucket()}/labels")
    root.write("there", b"data")
    return root


@pytest.mark.parametrize("what", ["503", "lost", "reset"])
@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD", "POST", "DELETE"])
def test_a_fault_of_the_server_is_outlived(s3: S3Server, root: Root, what: str, method: str, tmp_path: Path) -> None:
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "large").write_bytes(os.urandom(objects.PART_BYTES + 1))
    listed = list_folder(tmp_path / "group")
    with s3.failing(every(method, first=2, what=what)):
        assert root.create("commits/one.json", b"mine") is True
        assert root.create("commits/one.json", b"other") is False
        root.write("written", b"data")
        assert root.read("written") == b"data"
        assert root.names("") == ["commits", "there", "written"]
        entry = root.entry("written")
        assert entry is not None and entry.size == 4
        root.publish(tmp_path / "group", "group", listed)
        assert root.read("group/large") == (tmp_path / "group" / "large").read_bytes()
        root.remove("written")
        root.remove_folder("group")
        assert s3.fault is not None
    assert root.names("") == ["commits", "there"]


def test_a_deletion_and_an_upload_whose_answers_never_come_are_repeated(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on a link that is dead for a while: the library repeats neither."""
    monkeypatch.setattr(objects, "SILENCE_S", 0.5)
    root = open_root(f"s3://{s3.new_bucket()}/labels")
    root.write("there", b"data")
    (tmp_path / "large").write_bytes(os.urandom(objects.PART_BYTES + 1))
    with s3.failing(every("POST", first=1, what="silent")):
        root.remove("there")
        assert s3.fault is not None
    with s3.failing(every("POST", first=1, what="silent")):
        root.publish(tmp_path, "group", list_folder(tmp_path))
    assert root.names("") == ["group"]


def test_of_many_that_create_at_once_one_wins_on_a_server_that_fails(s3: S3Server, root: Root) -> None:
    """A call whose answer is lost must neither win twice nor lose its own object."""
    with s3.failing(some_calls(0.3, seed=1)), ThreadPoolExecutor(4) as threads:
        for key in ("a", "b", "c", "d", "e"):
            won = list(threads.map(lambda number, key=key: root.create(key, b"%d" % number), range(4)))
            assert sum(won) == 1
            assert root.read(key) == b"%d" % won.index(True)


def test_a_conflict_with_a_write_under_way_is_tried_again(s3: S3Server, root: Root) -> None:
    """S3 answers 409 to the second of two conditional puts at once, whose first may yet fail."""
    with s3.failing(every("PUT", first=2, what="409")):
        assert root.create("new", b"mine") is True
    with s3.failing(every("PUT", first=1, what="409")):
        assert root.create("new", b"mine") is False


def test_a_server_that_is_away_for_a_while_is_waited_for(s3: S3Server, root: Root) -> None:
    s3.stop()
    timer = threading.Timer(3, s3.start)
    timer.start()
    try:
        assert root.create("new", b"data") is True
        assert root.read("there") == b"data"
    finally:
        timer.join()


def test_patience_ends(s3: S3Server, root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PATIENCE_S", 1.0)
    with s3.failing(lambda _: "503"):
        for call in (lambda: root.create("new", b""), lambda: root.read("there"), lambda: root.write("new", b"")):
            with pytest.raises(OSError, match="answered 503") as caught:
                call()
            assert caught.value.errno == errno.EIO


def test_a_server_that_ignores_conditions_is_not_written_to(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def ignorant(environ: dict[str, object]) -> None:
        environ.pop("HTTP_IF_NONE_MATCH", None)

    root = open_root(f"s3://{s3.new_bucket()}/labels")
    with s3.failing(ignorant), pytest.raises(OSError, match="ignores conditional puts"):
        root.prepare()
    root.prepare()


def answering(status: str) -> Callable[[S3Server, pytest.MonkeyPatch], None]:
    def break_it(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(s3, "fault", lambda _: status)

    return break_it


def with_environment(**values: str) -> Callable[[S3Server, pytest.MonkeyPatch], None]:
    def break_it(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)

    return break_it


def refusing(
    status: int, code: str, more: str = "", hours: float | None = None
) -> Callable[[S3Server, pytest.MonkeyPatch], None]:
    """The server's clock may be so many hours ahead, and say so."""

    def break_it(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
        says = more
        if hours is not None:
            now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)
            says += f"<ServerTime>{now:%Y-%m-%dT%H:%M:%SZ}</ServerTime>"
        monkeypatch.setattr(s3, "fault", lambda _: f"{status}<Error><Code>{code}</Code>{says}</Error>")

    return break_it


def speaking_no_tls(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url.replace("http:", "https:"))


@pytest.mark.parametrize(
    ("break_it", "words", "number"),
    [
        (with_environment(AWS_ENDPOINT_URL=NOWHERE), "cannot reach http://127.0.0.1:9: it refuses", errno.ECONNREFUSED),
        (
            with_environment(AWS_ENDPOINT_URL=f"http://u:{quote(SECRET, safe='')}@127.0.0.1:9"),
            "cannot reach",
            errno.ECONNREFUSED,
        ),
        (with_environment(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY=""), "no credentials in", errno.EIO),
        (with_environment(AWS_ACCESS_KEY_ID=""), "no credentials: AccessKeyId is not set", errno.EIO),
        (answering("403"), r"access denied \(403\): ", errno.EACCES),
        (refusing(403, "AccessDenied"), r"\(403 AccessDenied\): listing needs .* s3:ListBucket on the", errno.EACCES),
        (refusing(403, "InvalidAccessKeyId"), r"check AWS_ACCESS_KEY_ID, and AWS_ENDPOINT_URL", errno.EACCES),
        (refusing(403, "SignatureDoesNotMatch"), r"check AWS_SECRET_ACCESS_KEY", errno.EACCES),
        (refusing(400, "ExpiredToken"), r"answered 400 ExpiredToken: these credentials have expired; renew", errno.EIO),
        (
            refusing(403, "RequestTimeTooSkewed", hours=-2),
            r"Skewed\): this machine's clock is wrong; set it: it is 2 h 0 min ahead of the server's",
            errno.EACCES,
        ),
        (
            refusing(403, "RequestTimeTooSkewed", hours=0.25),
            r"\(403 RequestTimeTooSkewed\): this machine's clock is wrong; set it: it is 15 min behind the server's",
            errno.EACCES,
        ),
        (
            refusing(403, "RequestTimeTooSkewed"),  # by the date of an answer
            r"clock is wrong; set it: it is 0 min (ahead of|behind) the server's",
            errno.EACCES,
        ),
        (
            refusing(400, "AuthorizationHeaderMalformed", "<Region>eu-west-3</Region>"),
            r"bucket '.*' is in region eu-west-3: set AWS_REGION=eu-west-3",
            errno.EIO,
        ),
        (refusing(507, "XMinioStorageFull"), r"answered 507 XMinioStorageFull: no space is left there", errno.EIO),
        (
            with_environment(AWS_ENDPOINT_URL="http://no-such-host.invalid:9000"),
            r"cannot reach http://no-such-host.invalid:9000: its name is not known here",
            errno.ECONNREFUSED,
        ),
        (
            speaking_no_tls,
            r"cannot reach https://127.*: it does not speak TLS; is it an http:// endpoint",
            errno.ECONNREFUSED,
        ),
        (answering("400"), "answered 400", errno.EINVAL),
        (answering("301"), "in another region: set AWS_REGION", errno.EIO),
    ],
)
def test_first_contact_tells_what_is_wrong(
    break_it: Callable[[S3Server, pytest.MonkeyPatch], None],
    words: str,
    number: int,
    s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within the short patience: with the long one each of these would take an hour."""
    monkeypatch.setattr(objects, "FIRST_CONTACT_S", 1.0)
    monkeypatch.setattr(objects, "PATIENCE_S", 3600.0)
    bucket = s3.new_bucket()
    break_it(s3, monkeypatch)
    began = time.monotonic()
    for call in (lambda root: root.prepare(), lambda root: root.read("labels.zarr/zarr.json")):
        with pytest.raises(OSError, match=words) as caught:
            call(open_root(f"s3://{bucket}/labels"))
        assert caught.value.errno == number
        told = "".join(traceback.format_exception(caught.value))
        assert not any(word in told for word in (SECRET, quote(SECRET, safe=""), KEY_ID))
        assert "\n" not in str(caught.value)
    assert time.monotonic() - began < objects.PATIENCE_S / 2


def test_a_bucket_that_is_not_there_is_not_an_empty_one(s3: S3Server) -> None:
    root = open_root("s3://no-such-bucket/labels")
    for call in (root.prepare, lambda: root.read("a"), lambda: root.entry("a"), lambda: root.names("")):
        with pytest.raises(OSError, match="there is no bucket 'no-such-bucket' on http://127") as caught:
            call()
        assert caught.value.errno == errno.ENODEV


def test_an_endpoint_that_is_no_url(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http:///{SECRET}")
    with pytest.raises(UsageError, match="no URL of a server") as caught:
        open_root("s3://bucket/labels").prepare()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["s3://", "s3:///a", "s3://b", "s3://bucket/a//b", "s3://bucket/../a", "s3://bucket/a/./b", "s3://bucket/a\nb",
     f"s3://{KEY_ID}:{SECRET.replace('/', '')}@bucket/a", f"s3://bucket/a?X-Amz-Signature={SECRET}", "http://host/a",
     "file:///tmp/a", "ftp://host/a"],
)  # fmt: skip
def test_urls_that_cannot_be_meant(url: str) -> None:
    assert is_url(url)
    with pytest.raises(UsageError) as caught:
        open_root(url)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value) and SECRET.replace("/", "") not in str(caught.value)


def test_urls_that_can(s3: S3Server) -> None:
    assert open_root("S3://bucket").location == "s3://bucket"
    assert open_root("s3://bucket/a b/50%20/").location == "s3://bucket/a b/50%20"
    assert open_root("gs://bucket/a").location == "gs://bucket/a"
    assert open_root("az://container/a").location == "az://container/a"
    bucket = s3.new_bucket()
    open_root(f"s3://{bucket}/a b/50%20/").write("key", b"data")
    open_root(f"s3://{bucket}").write("key", b"top")
    assert s3.get(bucket, "a b/50%20/key") == b"data"
    assert s3.get(bucket, "key") == b"top"


def test_nothing_secret_travels(s3: S3Server, root: Root) -> None:
    root.read("there")
    pickled = pickle.dumps(root)
    assert SECRET.encode() not in pickled and KEY_ID.encode() not in pickled
    assert SECRET not in repr(root)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_is_told_and_does_not_hang(s3: S3Server, root: Root) -> None:
    """The library's threads do not come along; a call would wait for ever."""
    root.read("there")
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            open_root(root.location).read("there")
            os.write(tell, b"read")
        except BaseException as error:
            os.write(tell, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    assert said.startswith("UsageError: this process was forked") and "forkserver" in said


def is_completion(environ: dict[str, str]) -> bool:
    return environ["REQUEST_METHOD"] == "POST" and "uploadId" in environ["QUERY_STRING"]


def test_parts_put_together_by_a_call_whose_answer_is_lost_count(s3: S3Server, root: Root, tmp_path: Path) -> None:
    """The server knows the upload no more, and says that there is none."""
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "large").write_bytes(os.urandom(objects.PART_BYTES + 1))
    answers = iter(["lost", "404"])
    with s3.failing(lambda environ: next(answers, None) if is_completion(environ) else None):
        root.publish(tmp_path / "group", "group", list_folder(tmp_path / "group"))
    assert root.read("group/large") == (tmp_path / "group" / "large").read_bytes()


def test_a_bucket_that_goes_away_is_not_an_object_that_is_missing(s3: S3Server, root: Root) -> None:
    bucket = root.location.split("/")[2]
    root.remove_folder("")
    s3.call("DELETE", f"/{bucket}")
    with pytest.raises(OSError, match="there is no bucket") as caught:
        root.read("there")
    assert caught.value.errno == errno.ENODEV


def test_zarr_reads_raise_as_files_do(
    s3: S3Server, root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PATIENCE_S", 1.0)
    zarr.create_array(tmp_path / "group", shape=(4,), chunks=(2,), dtype="u1", fill_value=0)[...] = [1, 2, 3, 4]
    root.publish(tmp_path / "group", "group", list_folder(tmp_path / "group"))
    array = zarr.open_array(root.zarr("group"), mode="r")
    with s3.failing(lambda _: "503"), pytest.raises(OSError, match="answered 503"):
        array[...]
    assert array[...].tolist() == [1, 2, 3, 4]
