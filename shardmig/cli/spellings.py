"""Flags of targets, and what each target calls them. Those of neptune-exporter are among them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from shardmig.cli.flags import TargetFlags
from shardmig.cli.speech import Speech
from shardmig.errors import UsageError

_OPTIONS: Final[dict[str, dict[str, str]]] = {
    "mlflow_tracking_uri": {"mlflow": "tracking-uri"},
    "name_prefix": {"comet": "name-prefix", "mlflow": "name-prefix", "wandb": "project-prefix", "zenml": "name-prefix"},
    "experiment_name_template": {"mlflow": "experiment-name-template"},
    "experiment_rename_file": {"mlflow": "experiment-rename-file"},
    "model_rename_file": {"mlflow": "model-rename-file"},
    "offline_dir": {"comet": "offline-dir", "wandb": "offline-dir"},
    "wandb_entity": {"wandb": "entity"},
    "comet_workspace": {"comet": "workspace"},
    "litlogger_owner": {"litlogger": "organization"},
}
"""By flag: the option of each target that has it."""

_SECRETS: Final = {
    "wandb_api_key": "WANDB_API_KEY",
    "comet_api_key": "COMET_API_KEY",
    "litlogger_api_key": "LIGHTNING_API_KEY",
    "litlogger_user_id": "LIGHTNING_USER_ID",
}
"""By flag: the variable that keeps it out of the process list."""


_PLACES: Final = {
    "comet": ("url", "COMET_URL_OVERRIDE"),
    "litlogger": ("cloud-url", "LIGHTNING_CLOUD_URL"),
    "wandb": ("base-url", "WANDB_BASE_URL"),
    "zenml": ("store-url", "ZENML_STORE_URL"),
}
"""By target: the option that says where it is, and the vendor's own variable for that."""

_PATHS: Final = ("experiment-rename-file", "model-rename-file", "offline-dir", "key-file", "credentials-file")


def settled(target: str, options: Mapping[str, str]) -> dict[str, str]:
    """Options as a plan keeps them: files by absolute paths, and where the target is even when the environment says it,
    because a migration into one server is not the migration into another."""
    found = {name: str(Path(text).absolute()) if name in _PATHS else text for name, text in options.items()}
    option, variable = _PLACES.get(target, ("", ""))
    place = os.environ.get(variable, "")
    if place and not urlsplit(place).password and not found.keys() & {option, "offline-dir"}:
        found[option] = place
    return found


def target_options(flags: TargetFlags) -> dict[str, str]:
    """The options that the flags stand for. Raises UsageError for a flag that means nothing to the target."""
    options = {}
    for name, targets in _OPTIONS.items():
        value = getattr(flags, name)
        if not value:
            continue
        if flags.target not in targets:
            raise UsageError(
                f"--{name.replace('_', '-')} means nothing to target {flags.target}",
                hint=f"it is for: {', '.join(sorted(targets))}",
            )
        options[targets[flags.target]] = str(value)
    if flags.target == "comet" and "name-prefix" in options:
        prefix = options.pop("name-prefix").replace("{", "{{").replace("}", "}}")
        options["project"] = prefix + "{project}"  # a template
    return options


def take_secrets(flags: TargetFlags, speech: Speech) -> None:
    """Use keys of the command line, for scripts of neptune-exporter, and say what is wrong with them."""
    for name, variable in _SECRETS.items():
        if value := getattr(flags, name):
            speech.say(f"shardmig: ps and the shell's history show --{name.replace('_', '-')}; set {variable} instead")
            os.environ[variable] = value
