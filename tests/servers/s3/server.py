"""moto's server, a proxy before it, and the buckets of tests."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shardmig.records import ArchivePaths
from tests.servers.s3.faults import FaultyProxy, proxied

_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}
_numbers = itertools.count(1)


class Server:
    """moto's server, in threads of this process, behind a proxy."""

    def __init__(self, port: int, proxy: FaultyProxy) -> None:
        import boto3

        self.proxy = proxy
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    @property
    def environment(self) -> dict[str, str]:
        """What leads clients of this process and of its children to the proxy."""
        return _CREDENTIALS | {"AWS_ENDPOINT_URL": self.proxy.url, "AWS_MAX_ATTEMPTS": "5"}

    def bucket(self) -> Bucket:
        """A new one, empty."""
        name = f"bucket-{os.getpid()}-{next(_numbers)}"
        self.client.create_bucket(Bucket=name)
        return Bucket(name, self)


class Bucket:
    """One bucket, looked at past the proxy, with AWS's own client."""

    def __init__(self, name: str, server: Server) -> None:
        self.name = name
        self.url = f"s3://{name}"
        self.proxy = server.proxy
        self.client = server.client

    @property
    def archive(self) -> ArchivePaths:
        """An archive in it."""
        return ArchivePaths(f"{self.url}/exports/data", f"{self.url}/exports/files")

    def put(self, key: str, content: bytes) -> None:
        """Store an object of any name."""
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def content(self, prefix: str = "") -> dict[str, bytes]:
        """Every object below a prefix, by the rest of its name."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
        return {
            key[len(prefix) :]: self.client.get_object(Bucket=self.name, Key=key)["Body"].read() for key in sorted(keys)
        }

    def unfinished_uploads(self) -> list[str]:
        """Keys of uploads that were begun, and neither completed nor given up."""
        return [one["Key"] for one in self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])]

    def upload_tree(self, folder: Path, prefix: str) -> None:
        """Store every file below a folder."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.put(f"{prefix}/{file.relative_to(folder).as_posix()}", file.read_bytes())

    def download_tree(self, prefix: str, folder: Path) -> None:
        """The reverse, into an empty folder."""
        shutil.rmtree(folder, ignore_errors=True)
        for name, content in self.content(prefix).items():
            file = folder / name.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


@contextmanager
def s3_server() -> Iterator[Server]:
    """A server on a loopback port."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it tells of every request
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        _, port = moto.get_host_and_port()
        with proxied(port) as proxy:
            yield Server(port, proxy)
    finally:
        moto.stop()
