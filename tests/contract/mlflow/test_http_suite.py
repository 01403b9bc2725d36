"""The MLflow target passes the suite on a real server with two workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.adapters.base import WriteSide
from shardmig.adapters.conformance import TargetSuite
from shardmig.adapters.mlflow import open_target
from shardmig.records import LoadOptions
from tests.servers.mlflow import MlflowServer


@pytest.mark.server
@pytest.mark.xdist_group("mlflow-server")
class TestHttp(TargetSuite):
    @pytest.fixture(autouse=True)
    def _server(self, mlflow_http: MlflowServer) -> None:
        self.uri = mlflow_http.uri
        mlflow_http.forget_runs()

    def open_target(self, folder: Path, load: LoadOptions) -> WriteSide:
        return open_target({"tracking-uri": self.uri}, load)
