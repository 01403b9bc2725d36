"""The protobuf messages that neptune-scale stores.

Loaded from the file inside neptune-query, past the package itself: importing that costs 3 s and 150 MB (measured:
it brings pandas), the messages cost 20 ms.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Final

from shardmig.errors import MissingExtra

_MESSAGES: Final = "generated/neptune_api/proto/neptune_pb/ingest/v1/common_pb2.py"


@cache
def messages() -> Any:
    """The module with Run, UpdateRunSnapshot, SET_OPERATION. Raises MissingExtra without neptune-query."""
    package = find_spec("neptune_query")
    if package is None or not package.submodule_search_locations:
        raise MissingExtra(
            "databases of neptune-scale need the package neptune-query, which is not installed",
            hint="pip install 'shardmig[neptune]'",
        )
    path = Path(package.submodule_search_locations[0], _MESSAGES)
    name = "neptune_query." + _MESSAGES.removesuffix(".py").replace("/", ".")
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location("shardmig_neptune_ingest_v1", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise MissingExtra(f"this neptune-query has no {_MESSAGES}", hint="pip install 'neptune-query>=1.14,<2'")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
