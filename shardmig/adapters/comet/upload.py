"""The vendor's own uploader, in this process. The only place that imports comet_ml (about 7 s, 120 MB: measured)."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shardmig.errors import AuthFailed, BadInput, Denied, QuotaExceeded, Unavailable

_ONE_AT_A_TIME: Final = threading.Lock()
"""Two experiments in one process disturb each other (measured)."""

_QUIET: Final = {
    "COMET_OFFLINE_SAMPLING_SIZE": "1000000000",
    "COMET_ERROR_TRACKING_ENABLE": "false",
    "COMET_INTERNAL_REPORTING": "false",
    "COMET_DISABLE_AUTO_LOGGING": "1",
}
"""Every point is sent, and nothing to anybody else."""

_MOST_COMPLAINTS: Final = 5


def upload(archive: Path, *, api_key: str, url: str, workspace: str | None, project: str) -> list[str]:
    """Send one offline archive; what the uploader complained of, first of points. Neither that there is nothing nor its own answer tells
    that all arrived. Raises AuthFailed, QuotaExceeded, Denied, BadInput and Unavailable."""
    with _ONE_AT_A_TIME, _environment(_QUIET | {"COMET_URL_OVERRIDE": url}):
        from comet_ml import offline

        with _complaints() as complaints, _refusals(workspace):
            was_sent = offline.upload_single_offline_experiment(
                str(archive),
                api_key,
                force_upload=False,
                display_level="debug",
                override_workspace=workspace,
                override_project_name=project,
            )
        if not was_sent:
            complaints.append("the uploader refused the archive")
        return sorted(complaints, key=lambda text: not is_about_points(text))[:_MOST_COMPLAINTS]


def is_about_points(complaint: str) -> bool:
    """Does the uploader say that it gave up sending points?"""
    return re.search("metrics? (batch|message)", complaint, re.IGNORECASE) is not None


@contextmanager
def _refusals(workspace: str | None) -> Iterator[None]:
    """The vendor's exceptions as errors of ours."""
    from comet_ml import exceptions

    try:
        yield
    except exceptions.InvalidAPIKey as error:
        raise AuthFailed("Comet does not know this API key", hint="is $COMET_API_KEY right?") from error
    except exceptions.MaxExperimentNumberReachedException as error:
        raise QuotaExceeded(f"Comet: {error}") from error
    except exceptions.InvalidWorkspace as error:
        hint = "choose another with --target-option workspace=NAME"
        raise Denied(f"Comet has no workspace {workspace!r} for this key", hint=hint) from error
    except exceptions.ViewOnlyAccessException as error:
        raise Denied(f"Comet: {error}") from error
    except (exceptions.ProjectNameIsTooLong, exceptions.ProjectNameEmpty) as error:
        raise BadInput(f"Comet: {error}") from error
    except (exceptions.CometException, OSError, ValueError) as error:
        raise Unavailable(f"the vendor's uploader gave up: {error}") from error


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What the vendor's client logs as warnings and errors, which it would print."""
    logger = logging.getLogger("comet_ml")
    kept = _Kept()
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [kept], False
    try:
        yield kept.texts
    finally:
        logger.handlers, logger.propagate = before


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage()[:300])
