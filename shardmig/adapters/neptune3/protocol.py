"""The client layer that is generated into neptune-query: endpoints, request bodies, messages, tokens.

Loaded past the package itself: importing that costs 1.5 s and 150 MB (measured: it brings pandas), this 0.2 s.
"""

from __future__ import annotations

import sys
import threading
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Final

from shardmig.adapters.neptune_server import ServerError
from shardmig.errors import MissingExtra

_NAME: Final = "shardmig_neptune_query_api"
_INSTALL: Final = "pip install 'shardmig[neptune]'"
_loading = threading.Lock()


@cache
def layer(module: str = "") -> Any:
    """A module of the client layer, by its name below `neptune_query.generated.neptune_api`. Raises MissingExtra."""
    with _loading:
        if _NAME not in sys.modules:
            _load()
    return import_module(f"{_NAME}.{module}" if module else _NAME)


def endpoint(name: str) -> Any:
    """An endpoint's module, such as `retrieval.get_series_values_proto`: it has `sync_detailed`."""
    return layer(f"api.{name}")


def body(name: str, content: dict[str, Any]) -> Any:
    """A request body of the generated class `name`."""
    return getattr(layer("models"), name).from_dict(content)


def parsed(name: str, content: bytes) -> Any:
    """A protobuf message of the read side, such as `series_values.ProtoSeriesValuesResponseDTO`. Raises ServerError for
    bytes that are none: something on the way answered in the server's place, or the server cannot say what it holds."""
    from google.protobuf.message import DecodeError

    module, _, kind = name.partition(".")
    try:
        return getattr(layer(f"proto.neptune_pb.api.v1.model.{module}_pb2"), kind).FromString(content)
    except DecodeError as error:
        raise ServerError(f"an answer cannot be read: {error}") from error


@cache
def client_version() -> str:
    """Of the client that the requests are made with."""
    return f"neptune-query {version('neptune-query')}"


def _load() -> None:
    package = find_spec("neptune_query")
    if package is None or not package.submodule_search_locations:
        raise MissingExtra("source 'neptune3' needs the package neptune-query, which is not installed", hint=_INSTALL)
    folder = Path(package.submodule_search_locations[0], "generated", "neptune_api")
    spec = spec_from_file_location(_NAME, folder / "__init__.py", submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None or not (folder / "__init__.py").is_file():
        raise MissingExtra("this neptune-query has no generated client", hint="pip install 'neptune-query>=1.14,<2'")
    module = module_from_spec(spec)
    sys.modules[_NAME] = module
    try:
        spec.loader.exec_module(module)
    except ImportError:
        del sys.modules[_NAME]
        raise
