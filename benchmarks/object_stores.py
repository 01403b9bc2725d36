"""Which library an archive in an object store is best read and written with: obstore, pyarrow.fs or s3fs.

Each against a moto server in a process of its own: listing, an upload of 64 MB (full: 256 MB) as it streams in, one that breaks off
in the middle, an object that may be created only once, a server that answers 503 twice. s3fs is left out unless it can be
imported: `PYTHONPATH=FOLDER`, after `uv pip install --target FOLDER s3fs`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, Final

from tests.servers.s3.faults import proxied

_BLOCK: Final = 1 << 20
_ENVIRONMENT: Final = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
_SERVER: Final = """
import sys, threading
from moto.server import ThreadedMotoServer
from moto.s3.models import s3_backends
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
backend = s3_backends["123456789012"]["aws"]
backend.create_bucket("bucket", "us-east-1")
for number in range(int(sys.argv[1])):
    backend.put_object("bucket", f"keys/run_{number:07d}_part_0.parquet", b"")
print(server.get_host_and_port()[1], flush=True)
threading.Event().wait()
"""


class Obstore:
    """With the settings of shardmig.archive.store."""

    def __init__(self) -> None:
        from shardmig.archive.places import root_of

        self._root: Any = root_of("s3://bucket")

    def count(self) -> int:
        """Keys of the long list."""
        return sum(1 for _ in (self._root / "keys").below())

    def write(self, name: str, blocks: Iterator[bytes]) -> None:
        """Upload a stream."""
        (self._root / name).write(blocks)

    def create(self, name: str) -> bool:
        """Create an object unless it is there."""
        return bool((self._root / name).create(b"x"))


class PyarrowFs:
    """As it comes."""

    def __init__(self) -> None:
        import pyarrow.fs as fs

        self._fs, self._select = fs.S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"]), fs.FileSelector

    def count(self) -> int:
        """Keys of the long list."""
        return len(self._fs.get_file_info(self._select("bucket/keys")))

    def write(self, name: str, blocks: Iterator[bytes]) -> None:
        """Upload a stream."""
        with self._fs.open_output_stream(f"bucket/{name}") as stream:
            for block in blocks:
                stream.write(block)

    def create(self, name: str) -> bool:
        """It has no condition."""
        self.write(name, iter([b"x"]))
        return True


class S3fs:
    """As it comes."""

    def __init__(self) -> None:
        import s3fs  # type: ignore[import-not-found,unused-ignore]

        self._fs = s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"])

    def count(self) -> int:
        """Keys of the long list."""
        return len(self._fs.ls("bucket/keys"))

    def write(self, name: str, blocks: Iterator[bytes]) -> None:
        """Upload a stream."""
        with self._fs.open(f"bucket/{name}", "wb") as stream:
            for block in blocks:
                stream.write(block)

    def create(self, name: str) -> bool:
        """Mode `create` of its pipe_file."""
        try:
            self._fs.pipe_file(f"bucket/{name}", b"x", mode="create")
        except FileExistsError:
            return False
        return True


LIBRARIES: Final[dict[str, Callable[[], Any]]] = {"obstore": Obstore, "pyarrow.fs": PyarrowFs, "s3fs": S3fs}


def measure(name: str, megabytes: int) -> None:
    """One library, in this process: a line of the table."""
    port = int(os.environ["MOTO_PORT"])
    with proxied(port) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
        store = LIBRARIES[name]()
        list_s = _seconds(store.count)
        store.write("warm", iter([b"x"]))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        upload_s = _seconds(lambda: store.write(f"{name}/large", itertools.repeat(bytes(_BLOCK), megabytes)))
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        left = _broken(store, f"{name}/broken")
        once = store.create(f"{name}/once") and not store.create(f"{name}/once")
        os.environ["AWS_ENDPOINT_URL"] = proxy.url
        proxy.fail("503", lambda asked: asked.is_a("PUT"), times=2)
        retried = _survives(lambda: LIBRARIES[name]().write(f"{name}/retried", iter([b"x"])))
    print(f"{name:12} {list_s:8.2f} {upload_s:10.2f} {grown:9} {left:>22} {once!s:>12} {retried!s:>11}")


def _seconds(what: Callable[[], object]) -> float:
    started = time.monotonic()
    what()
    return time.monotonic() - started


def _broken(store: Any, name: str) -> str:
    def breaking() -> Iterator[bytes]:
        yield from itertools.repeat(bytes(_BLOCK), 20)
        raise KeyError

    with suppress(KeyError):
        store.write(name, breaking())
    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1")
    found = client.list_objects_v2(Bucket="bucket", Prefix=name).get("Contents", [])
    return f"{found[0]['Size'] >> 20} MB as if whole" if found else "nothing"


def _survives(what: Callable[[], object]) -> bool:
    try:
        what()
    except OSError as error:
        print(f"not retried: {error}", file=sys.stderr)
        return False
    return True


def main() -> None:
    """Every library in a process of its own, so that each starts with the same memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    keys, megabytes = (100_000, 256) if asked.full else (10_000, 64)
    os.environ |= _ENVIRONMENT
    if asked.only:
        measure(asked.only, megabytes)
        return
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(keys)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert server.stdout is not None
        os.environ["MOTO_PORT"] = server.stdout.readline().decode().strip()
        print(f"{'':12} list {keys} s, upload {megabytes} MB s, memory MB, left by a break, create once, 503 retried")
        for name in LIBRARIES:
            if name != "s3fs" or find_spec("s3fs"):
                size = ["--full"] if asked.full else []
                subprocess.run([sys.executable, "-m", "benchmarks.object_stores", "--only", name, *size], check=True)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
