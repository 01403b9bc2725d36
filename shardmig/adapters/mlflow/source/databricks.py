"""What only Databricks has: who may do what with experiments and registered models, and the notebooks that runs came from.

Asked for by requests that no other MLflow answers, as Databricks' own documentation and mlflow-export-import have them. Tried
against a server of the tests that speaks them, never against Databricks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from shardmig.adapters.mlflow.http import HttpClient
from shardmig.errors import BadInput, UsageError
from shardmig.records import Field, Scope

PERMISSIONS: Final = "sys/mlflow/permissions"
FORMATS: Final = ("SOURCE", "HTML", "JUPYTER", "DBC")
_PATH: Final = "mlflow.databricks.notebookPath"
_REVISION: Final = "mlflow.databricks.notebookRevisionID"
_FOLDER: Final = "notebooks"
_KINDS: Final[dict[Scope, str]] = {"experiments": "experiments", "registered_models": "registered-models"}


class Notebook(NamedTuple):
    """A notebook in one format. `name`: the artifact that it becomes."""

    path: str
    revision: str
    format: str

    @property
    def name(self) -> str:
        """As mlflow-export-import calls it."""
        return f"{_FOLDER}/{self.path.rpartition('/')[2]}.{self.format.lower()}"


class Databricks:
    """One workspace. Raises AdapterError classes."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    def permissions(self, scope: Scope, id_: str) -> Any:
        """The levels that there are and who has which. `id_`: the id of an experiment, the name of a model."""
        if scope == "registered_models":
            id_ = self._model_id(id_)
        path = f"/api/2.0/permissions/{_KINDS[scope]}/{id_}"
        return {**self._told(f"{path}/permissionLevels"), "permissions": self._told(path)}

    def fetch(self, notebook: Notebook, file: Path) -> None:
        """A notebook into a file."""
        asked: dict[str, Any] = {"path": notebook.path, "format": notebook.format, "direct_download": True}
        if notebook.revision:
            asked["revision"] = {"revision_timestamp": notebook.revision}
        file.write_bytes(self._http.read("/api/2.0/workspace/export", {}, asked))

    def _model_id(self, name: str) -> str:
        path = "/api/2.0/mlflow/databricks/registered-models/get"
        told = self._told(path, {"name": name}).get("registered_model_databricks")
        found = told.get("id") if isinstance(told, dict) else None
        if not isinstance(found, str):
            raise BadInput(f"{path} tells no id of model {name!r}")
        return found

    def _told(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        return self._http.call("GET", path, dict[str, Any], query)


def permission_fields(told: Any) -> Iterator[Field]:
    """Kept as they are: nothing is done with them."""
    if told:
        yield Field(PERMISSIONS, "string", json.dumps(told, sort_keys=True, ensure_ascii=False))


def notebooks_of(tags: Mapping[str, str], formats: tuple[str, ...]) -> list[Notebook]:
    """The notebook that a run came from, in each of the formats."""
    path = tags.get(_PATH, "")
    return [Notebook(path, tags.get(_REVISION, ""), one) for one in formats if path]


def notebook_formats(text: str) -> tuple[str, ...]:
    """From the option. Raises UsageError."""
    asked = [name.strip().upper() for name in text.split(",") if text]
    if unknown := [name for name in asked if name not in FORMATS]:
        raise UsageError(f"notebooks: there is no format {unknown[0]!r}", hint=f"there are: {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(asked))
