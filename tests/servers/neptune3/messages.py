"""The protocol's protobuf messages, as neptune-api (what neptune-scale brings) has them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_API = "neptune_api.proto.neptune_pb.api.v1.model"
_INGEST = "neptune_api.proto.neptune_pb.ingest.v1"

import_module("neptune_api.proto")
entries: Any = import_module(f"{_API}.leaderboard_entries_pb2")
attributes: Any = import_module(f"{_API}.attributes_pb2")
series: Any = import_module(f"{_API}.series_values_pb2")
common: Any = import_module(f"{_INGEST}.common_pb2")
ingest: Any = import_module(f"{_INGEST}.ingest_pb2")
operations: Any = import_module(f"{_INGEST}.pub.ingest_pb2")
client: Any = import_module(f"{_INGEST}.pub.client_pb2")
status: Any = import_module(f"{_INGEST}.pub.request_status_pb2")
codes: Any = import_module("neptune_api.proto.google_rpc.code_pb2")
