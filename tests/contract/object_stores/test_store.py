"""Single objects: what is written is there whole, what fails on the way is tried again, what is refused is told apart."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from shardmig.archive.places import file_sha256, names_in, root_of
from shardmig.archive.store import ObjectPath
from shardmig.errors import AuthFailed, HostilePath, Unavailable, UsageError
from tests.servers.s3.faults import Failure
from tests.servers.s3.server import Bucket

LARGE = bytes(range(256)) * 70_000  # sent in three pieces


def place(bucket: Bucket, name: str = "a/b") -> ObjectPath:
    """A name in the bucket."""
    root = root_of(bucket.url)
    assert isinstance(root, ObjectPath)
    return root / name


def in_blocks(content: bytes) -> Iterator[bytes]:
    """As files come in."""
    return (content[start : start + (1 << 20)] for start in range(0, len(content), 1 << 20))


@pytest.mark.parametrize("content", [b"", b"small", LARGE])
def test_what_is_written_is_read_again(bucket: Bucket, content: bytes) -> None:
    file = place(bucket)
    file.write(in_blocks(content))
    assert b"".join(file.blocks()) == content
    assert bucket.content() == {"a/b": content}
    assert file.stat().st_size == len(content)
    with file.open() as opened:
        opened.seek(-min(3, len(content)), 2)
        assert opened.read() == content[-3:]


def test_a_prefix_with_something_below_it_is_a_folder(bucket: Bucket) -> None:
    for key in ("p/x/1", "p/x/deep/2", "p/y", "pz/1"):
        bucket.put(key, b"1")
    folder = place(bucket, "p")
    assert (folder.is_dir(), folder.is_file(), (folder / "y").is_file()) == (True, False, True)
    assert (place(bucket, "nothing").is_dir(), place(bucket, "nothing").is_file()) == (False, False)
    assert folder.children() == (["x"], [folder / "y"])
    assert [found.relative_to(folder) for found in folder.below()] == ["x/1", "x/deep/2", "y"]
    assert list(names_in(folder, "")) == ["y"]
    assert list(names_in(place(bucket, ""), "p")) == []


def test_long_lists_are_read_to_their_end(bucket: Bucket) -> None:
    from moto.s3.models import s3_backends

    (backend,) = (account["aws"] for account in s3_backends.values())  # over HTTP it would take a minute
    for number in range(2500):
        backend.put_object(bucket.name, f"p/{number:05d}", b"")
    assert len(place(bucket, "p").children()[1]) == 2500
    assert sum(1 for _ in place(bucket, "p").below()) == 2500


@pytest.mark.parametrize(
    ("method", "failure"),
    [
        *itertools.product(["PUT", "GET", "HEAD", "DELETE"], ["500", "503", "429"]),
        *itertools.product(["PUT", "GET", "HEAD"], ["reset", "committed-then-cut"]),
    ],
)
def test_a_request_that_fails_twice_is_sent_again(bucket: Bucket, method: str, failure: Failure) -> None:
    bucket.put("old", b"old")
    bucket.proxy.fail(failure, lambda asked: asked.is_a(method), times=2)
    place(bucket).write([b"new"])
    assert b"".join(place(bucket, "old").blocks()) == b"old"
    place(bucket, "old").unlink()
    assert bucket.content() == {"a/b": b"new"}
    assert bucket.proxy.count(method) == 3


@pytest.mark.parametrize("failure", ["500", "503", "reset"])
@pytest.mark.parametrize("request_of", ["POST", "PUT"])
def test_an_upload_in_pieces_survives_failures(bucket: Bucket, failure: Failure, request_of: str) -> None:
    bucket.proxy.fail(failure, lambda asked: asked.is_a(request_of), times=2)
    place(bucket).write(in_blocks(LARGE))
    assert bucket.content() == {"a/b": LARGE}
    assert bucket.unfinished_uploads() == []


def test_an_upload_whose_end_was_confirmed_too_late_is_whole(bucket: Bucket) -> None:
    bucket.proxy.fail("committed-then-cut", lambda asked: asked.is_a("POST", "uploadId="))
    place(bucket).write(in_blocks(LARGE))
    assert bucket.content() == {"a/b": LARGE}


def test_an_upload_whose_end_was_not_confirmed_is_to_be_tried_again(bucket: Bucket) -> None:
    """Stores other than this server forget an upload once it is completed."""
    for failure in ("committed-then-cut", "404"):
        bucket.proxy.fail(failure, lambda asked: asked.is_a("POST", "uploadId="))
    with pytest.raises(Unavailable, match="not confirmed"):
        place(bucket).write(in_blocks(LARGE))
    place(bucket).write(in_blocks(LARGE))
    assert bucket.content() == {"a/b": LARGE}


def test_a_body_that_breaks_off_is_read_to_its_end(bucket: Bucket) -> None:
    bucket.put("a/b", LARGE)
    bucket.proxy.fail("cut-body", lambda asked: asked.is_a("GET"), times=2)
    assert b"".join(place(bucket).blocks()) == LARGE


@pytest.mark.parametrize("blocks", [1, 20])
def test_a_content_that_breaks_off_leaves_nothing(bucket: Bucket, blocks: int) -> None:
    def breaking() -> Iterator[bytes]:
        yield from itertools.repeat(bytes(1 << 20), blocks)
        raise Unavailable("the source broke off")

    place(bucket, "old").write([b"old"])
    with pytest.raises(Unavailable, match="the source broke off"):
        place(bucket, "old").write(breaking())
    assert bucket.content() == {"old": b"old"}
    assert bucket.unfinished_uploads() == []


def test_an_object_is_created_once(bucket: Bucket) -> None:
    assert place(bucket).create(b"mine")
    assert not place(bucket).create(b"theirs")
    assert bucket.content() == {"a/b": b"mine"}


def test_a_server_that_is_away_for_a_second_is_waited_for(bucket: Bucket) -> None:
    del os.environ["AWS_MAX_ATTEMPTS"]
    bucket.proxy.down_for(1)
    place(bucket).write([b"1"])
    bucket.proxy.down_for(1)
    place(bucket, "large").write(in_blocks(LARGE))
    bucket.proxy.fail("reset", lambda asked: asked.is_a("DELETE"), times=1)
    place(bucket, "large").unlink()
    assert file_sha256(place(bucket)) == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"


def test_a_server_that_stays_away_is_named(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match=rf"{bucket.url}/a/b cannot be reached") as raised:
        place(bucket).stat()
    assert "AWS_ENDPOINT_URL" in raised.value.hint


def test_a_bucket_that_is_not_there_is_named(bucket: Bucket) -> None:
    nowhere = root_of("s3://no-such-bucket/x")
    assert isinstance(nowhere, ObjectPath)
    for ask in (lambda: nowhere.write([b"1"]), nowhere.is_dir, nowhere.children):
        with pytest.raises(UsageError, match="there is no bucket s3://no-such-bucket"):
            ask()


def test_what_is_denied_is_told_with_what_to_set(bucket: Bucket) -> None:
    bucket.proxy.fail("403", lambda asked: True, times=3)
    for ask in (lambda: place(bucket).write([b"1"]), place(bucket).is_file, place(bucket).is_dir):
        with pytest.raises(AuthFailed, match=f"no access to {bucket.url}") as raised:
            ask()
        assert "AWS_PROFILE" in raised.value.hint


def test_credentials_come_from_a_profile_too(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("aws") / "credentials"
    file.write_text("[other]\naws_access_key_id = PROFILE\naws_secret_access_key = testing\n")
    os.environ |= {"AWS_PROFILE": "other", "AWS_SHARED_CREDENTIALS_FILE": str(file)}
    del os.environ["AWS_ACCESS_KEY_ID"]
    place(bucket).write([b"1"])
    assert bucket.content() == {"a/b": b"1"}


@pytest.mark.parametrize("key", ["p/../../up", "p//x", "p/./x"])
def test_an_object_whose_name_leads_out_is_refused(bucket: Bucket, key: str) -> None:
    bucket.put(key, b"1")
    with pytest.raises(HostilePath, match="no object may have"):
        list(place(bucket, "p").below())
    with pytest.raises(HostilePath):
        place(bucket, key).is_file()


@pytest.mark.parametrize(
    "url",
    ["s3://", "s3:///x", "s3://bucket/../x", "s3://bucket//x", "s3://KEY:secret@bucket/x", "ftp://host/x", "://x"],
)
def test_a_url_that_names_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as raised:
        root_of(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["gs://bucket/x", "az://container/x"])
def test_other_stores_say_what_they_lack(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", "/nonexistent.json")
    place = root_of(url)
    with pytest.raises((AuthFailed, Unavailable)):
        place.is_dir()


_STREAM = """
import itertools, resource, sys
from shardmig.archive.places import root_of
target = root_of(sys.argv[1]) / "large"
target.write([b"warm"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
target.write(itertools.repeat(bytes(1 << 20), 96))
for _ in target.blocks(): pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_does_not_grow_with_the_object(bucket: Bucket) -> None:
    ended = subprocess.run([sys.executable, "-c", _STREAM, bucket.url], capture_output=True, text=True, timeout=180)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < 70
