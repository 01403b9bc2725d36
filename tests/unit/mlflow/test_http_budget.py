"""What a budget tells of the server that it belongs to."""

from __future__ import annotations

from uuid import uuid4

from shardmig.adapters.budget import standings
from shardmig.adapters.mlflow.credentials import Credentials, Login
from shardmig.adapters.mlflow.http import HttpClient
from tests.servers.scripted import Server, scripted_server

__all__ = ["scripted_server"]


def test_a_password_in_the_uri_is_not_told_by_the_budget(scripted_server: Server) -> None:
    user, password = uuid4().hex, uuid4().hex
    uri = scripted_server.uri.replace("://", f"://{user}:{password}@")
    client = HttpClient(uri, Login(Credentials()), connections=1, timeout_s=5, requests_per_s=50)
    client.call("POST", "/api", object, {})
    client.close()
    [told] = [standing.name for standing in standings() if user in standing.name]
    assert password not in told
