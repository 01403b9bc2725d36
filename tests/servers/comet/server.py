"""A local Comet: speaks the HTTP of the server to the unmodified comet_ml client, and its REST API, version 2.

    with comet_server() as server:
        os.environ |= {"COMET_URL_OVERRIDE": server.url, "COMET_API_KEY": server.api_key}

What it keeps is in `server.experiments`; what goes wrong on purpose is in `server.faults`. It answers as the vendor's client
asks; what the hosted service does beyond that is not known here.
"""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections import Counter
from contextlib import AbstractContextManager
from typing import Final
from urllib.parse import parse_qs, urlsplit

from tests.servers.comet.api import Api, Refused
from tests.servers.comet.experiments import Experiment
from tests.servers.faults import Faults
from tests.servers.http import Exchange, LocalServer, answering

API_KEY: Final = "key-of-the-local-comet"


class CometServer(LocalServer):
    """Comet on a loopback port. `requests`: how often each path was asked, faults included.

    most_values: of one metric that it shows, as the hosted service does; None = all.
    """

    def __init__(self) -> None:
        super().__init__(_Connection)
        self.experiments: dict[str, Experiment] = {}
        self.workspaces: set[str] = {"default"}
        self.faults = Faults(kinds=("500", "503", "drop"))
        self.requests: Counter[str] = Counter()
        self.api_key = API_KEY
        self.most_values: int | None = None
        self.writing = threading.RLock()
        self.api = Api(self)

    @property
    def root(self) -> str:
        """Scheme and host."""
        return super().url

    @property
    def url(self) -> str:
        """What stands in COMET_URL_OVERRIDE."""
        return f"{self.root}/clientlib/"


def comet_server() -> AbstractContextManager[CometServer]:
    """A running server, gone at the end."""
    return answering(CometServer())


class _Connection(Exchange):
    server: CometServer

    def answer(self) -> None:
        body = self.body()
        target = urlsplit(self.path)
        self.server.requests[target.path] += 1
        if self.server.faults.latency_s:
            time.sleep(self.server.faults.latency_s)
        fault = self.server.faults.strike(target.path)
        if fault == "drop":
            self.hang_up()
        elif fault.isdigit():
            self.send_fault(fault, self.server.faults.retry_after_s)
        else:
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            status, content, kind = self._result(target.path, parse_qs(target.query, keep_blank_values=True), body)
            if fault == "committed":  # done, and the client never learns of it
                self.hang_up()
            else:
                self.send(status, content, {"Content-Type": kind}, is_cut=fault == "cut")

    def _result(self, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, bytes, str]:
        try:
            key = self.headers.get("Authorization") or self.headers.get("Comet-Sdk-Api") or query.get("apiKey", [""])[0]
            params = {name: values[-1] for name, values in query.items()}
            with self.server.writing:
                answer = self.server.api.answer(path, params, body, dict(self.headers), key)
        except Refused as refusal:
            return refusal.status, json.dumps(refusal.body).encode(), "application/json"
        if isinstance(answer, bytes):
            return 200, answer, "application/octet-stream"
        return 200, json.dumps(answer).encode(), "application/json"
