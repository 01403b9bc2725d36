"""Which of an MLflow's objects are read: classes, names, versions, files. Contradictions are refused."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from shardmig.adapters.mlflow.source.databricks import notebook_formats
from shardmig.adapters.mlflow.source.limits import FileLimit, file_limit
from shardmig.errors import UsageError
from shardmig.records import RunRef, Scope

OBJECTS: Final[dict[str, Scope]] = {
    "runs": "runs",
    "models": "registered_models",
    "traces": "traces",
    "prompts": "prompts",
    "logged-models": "logged_models",
    "datasets": "datasets",
    "experiments": "experiments",
}
"""What users call the classes of objects."""

_IN_REGISTRY: Final = {"registered_models": "models", "prompts": "prompts", "datasets": "datasets"}
_STAGES: Final = ("None", "Staging", "Production", "Archived")
_LATEST: Final = "latest"
_ALL: Final = "*"


class WantedOptions(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """What to read, as texts.

    objects        classes of objects, of OBJECTS, separated by commas
    experiments    names of experiments: only what belongs to these
    models         names of registered models: only these; prompts and datasets likewise
                   names are separated by commas; `name*` is a prefix, `@FILE` a file with one name a line
    stages         versions of models in these stages only
    versions       versions of these numbers only; latest: the last one of each stage
    no_artifacts   no files are read; how many there are is told
    max_file_size  larger files are not read, and told: bytes, or with K, M, G
    permissions    also who may do what with experiments and registered models (Databricks)
    notebooks      also the notebooks that runs came from, in these of Databricks' formats, separated by commas
    """

    objects: str = ",".join(OBJECTS)
    experiments: str = ""
    models: str = ""
    prompts: str = ""
    datasets: str = ""
    stages: str = ""
    versions: str = ""
    no_artifacts: Literal["yes", "no"] = "no"
    max_file_size: str = ""
    permissions: Literal["yes", "no"] = "no"
    notebooks: str = ""


class Names:
    """Names of one class that were asked for; none = all. Remembers which of them are there."""

    def __init__(self, option: str, text: str) -> None:
        self._option = option
        self._patterns = frozenset(_patterns(option, text))
        self._prefixes = [name for name in self._patterns if name.endswith("*")]
        self._found: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def wants(self, *names: str) -> bool:
        """Is what is called so wanted?"""
        if not self:
            return True
        found = self._patterns.intersection(names).difference(self._prefixes)
        found |= {prefix for prefix in self._prefixes if any(name.startswith(prefix[:-1]) for name in names)}
        self._found |= found
        return bool(found)

    def check(self) -> None:
        """Raises UsageError for a name or prefix that nothing has: a typing error must not select less than was meant."""
        if unknown := sorted(self._patterns - self._found - {_ALL}):
            hint = "" if unknown[0].endswith("*") else "`name*` takes all that begin so"
            raise UsageError(f"{self._option}: the source has no {unknown[0]!r}", hint=hint)


class Versions:
    """Which versions of registered models; none = all. Remembers which numbers each model has."""

    def __init__(self, stages: Iterable[str], numbers: Iterable[str]) -> None:
        self._stages = frozenset(stages)
        self._numbers = frozenset(numbers)
        self._found: dict[str, set[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._stages or self._numbers)

    def of(self, name: str, versions: list[Any]) -> list[Any]:
        """Those wanted of one model's versions, which come in their order."""
        self._found[name] = {str(one.version) for one in versions}
        if self._stages:
            return [one for one in versions if (one.current_stage or "None") in self._stages]
        if not self._numbers:
            return versions
        last = {one.current_stage: str(one.version) for one in versions} if _LATEST in self._numbers else {}
        return [one for one in versions if str(one.version) in self._numbers.union(last.values())]

    def check(self, names: Collection[str]) -> None:
        """`names`: the models that are read; none = all were asked for by `of`. Raises UsageError for a number that none of
        them has."""
        names = names or self._found.keys()
        held = set().union(*(self._found.get(name, ()) for name in names))
        if unknown := sorted(self._numbers - held - {_LATEST}, key=int):
            who = f"{next(iter(names))} has no" if len(names) == 1 else "no model has a"
            raise UsageError(f"versions: {who} version {unknown[0]}")


class Wanted:
    """All of it. `names`: by scope; experiments stand for what belongs to them."""

    def __init__(self, options: WantedOptions = WantedOptions()) -> None:  # noqa: B008 (immutable)
        """Raises UsageError."""
        self.scopes = _scopes(options.objects)
        self.limit: FileLimit = file_limit(options.no_artifacts, options.max_file_size)
        self.permissions = options.permissions == "yes"
        self.notebooks = notebook_formats(options.notebooks)
        if self.notebooks and not self.limit.takes_any:
            raise UsageError("notebooks and no-artifacts exclude each other", hint="give one of them")
        self.versions = _versions(options)
        self._experiments = Names("experiments", options.experiments)
        self._names = {scope: Names(name, getattr(options, name)) for scope, name in _IN_REGISTRY.items()}
        for scope, name in _IN_REGISTRY.items():
            asks = self._names[scope] or (scope == "registered_models" and self.versions)
            if asks and scope not in self.scopes:
                raise UsageError(f"objects leaves {name} out, and another option chooses among them")

    def mark(self, scope: Scope) -> str:
        """Part of the fingerprints of a scope: what else was asked for, an object has. "" where nothing was."""
        permissions = "-permissions" if self.permissions and scope in ("experiments", "registered_models") else ""
        notebooks = "-".join(("", *self.notebooks)) if scope == "runs" else ""
        return self.limit.mark + permissions + notebooks

    def refuse_without_server(self) -> None:
        """Raises UsageError for what only a server tells."""
        if self.permissions or self.notebooks:
            name = "permissions" if self.permissions else "notebooks"
            raise UsageError(f"{name}: only Databricks tells them", hint="give the http(s) address of a workspace")

    def wants(self, entity: RunRef, name: str = "") -> bool:
        """Is this entity wanted? `name`: what else it is called."""
        if (names := self._names.get(entity.scope)) is not None:
            return names.wants(entity.id, name)
        return self._experiments.wants(entity.project)

    def wants_experiment(self, name: str) -> bool:
        """Is what belongs to this experiment wanted?"""
        return self._experiments.wants(name)

    def check(self, scope: Scope) -> None:
        """All entities of a scope were asked for by `wants`. Raises UsageError for names that none of them has."""
        if scope in self._names:
            self._names[scope].check()
        elif scope == "experiments":
            self._experiments.check()

    def refuse_projects(self, projects: Iterable[str], registry: str) -> None:
        """Raises UsageError where -p/--project says something else."""
        chosen = set(projects)
        if chosen and self._experiments:
            raise UsageError("--project and experiments both choose experiments", hint="give one of them")
        asked = [name for scope, name in _IN_REGISTRY.items() if self._names[scope]]
        if chosen and registry not in chosen and asked:
            raise UsageError(
                f"--project leaves {asked[0]} out, and {asked[0]} chooses among them", hint=f"add -p {registry}"
            )


def split_options(texts: Mapping[str, str]) -> tuple[Wanted, dict[str, str]]:
    """What to read, and the options that say something else. Raises UsageError."""
    names = wanted_names()
    try:
        options = msgspec.convert({name: texts[name] for name in names if name in texts}, WantedOptions)
    except msgspec.ValidationError as error:
        raise UsageError(f"mlflow source: {error}") from error
    return Wanted(options), {name: text for name, text in texts.items() if name not in names}


def wanted_names() -> list[str]:
    """The names of these options."""
    return [field.encode_name for field in msgspec.structs.fields(WantedOptions)]


def _scopes(text: str) -> frozenset[Scope]:
    names = [name.strip() for name in text.split(",")]
    if unknown := sorted(set(names) - set(OBJECTS)):
        raise UsageError(f"objects: there is no {unknown[0]!r}", hint=f"there are: {', '.join(OBJECTS)}")
    return frozenset(OBJECTS[name] for name in names)


def _versions(options: WantedOptions) -> Versions:
    if options.stages and options.versions:
        raise UsageError("stages and versions exclude each other", hint="give one of them")
    numbers = [number.strip() for number in options.versions.split(",") if options.versions]
    for number in numbers:
        if number != _LATEST and not (number.isdecimal() and int(number) > 0):
            raise UsageError(f"versions: {number!r} is no version", hint="numbers between commas, or latest")
    stages = {stage.lower(): stage for stage in _STAGES}
    asked = [stage.strip().lower() for stage in options.stages.split(",") if options.stages]
    if unknown := [stage for stage in asked if stage not in stages]:
        raise UsageError(f"stages: there is no {unknown[0]!r}", hint=f"there are: {', '.join(_STAGES)}")
    return Versions((stages[stage] for stage in asked), numbers)


def _patterns(option: str, text: str) -> Iterator[str]:
    for part in (part.strip() for part in text.split(",") if text):
        if not part:
            raise UsageError(f"{option}: a name is empty")
        if not part.startswith("@"):
            yield part
            continue
        try:
            lines = Path(part[1:]).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{option}: {part[1:]} cannot be read: {error}", hint="one name a line") from error
        listed = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not listed:
            raise UsageError(f"{option}: {part[1:]} lists no name", hint="one name a line; # begins a comment")
        yield from listed
