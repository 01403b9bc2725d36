"""The only module that writes to stdout and stderr. stdout is for the answer, stderr for people."""

from __future__ import annotations

import errno
import functools
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from shardmig.cli.exits import ExitCode, exit_code_of
from shardmig.cli.flags import SpeechFlags
from shardmig.errors import DiskFull, ShardmigError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType


class Speech:
    """How one command speaks, by its flags."""

    def __init__(self, flags: SpeechFlags) -> None:
        self.as_json = flags.as_json
        self.is_verbose = flags.verbose
        self._log: TextIO | None = None
        if flags.log_file is not None:
            try:
                self._log = open(flags.log_file, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            except OSError as error:
                raise UsageError(f"--log-file: {flags.log_file}: {error.strerror}") from error

    def say(self, text: str) -> None:
        """One line for people."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
        self.note(text)

    def note(self, text: str) -> None:
        """A line for --log-file alone."""
        if self._log is not None:
            now = datetime.now(tz=UTC).isoformat(timespec="seconds")
            self._log.writelines(f"{now} {line}\n" for line in text.splitlines())
            self._log.flush()

    def show(self, renderables: Iterable[RenderableType]) -> None:
        """Tables for people."""
        self._print(sys.stderr, renderables)

    def answer(self, document: Any, renderables: Iterable[RenderableType]) -> None:
        """The answer of a command: `document` as JSON, else tables, on stdout."""
        if not self.as_json:
            self._print(sys.stdout, renderables)
            return
        _write_json(document)

    def close(self) -> None:
        """Close the log file; idempotent."""
        if self._log is not None:
            self._log.close()

    def _print(self, stream: TextIO, renderables: Iterable[RenderableType]) -> None:
        from rich.text import Text

        from shardmig.report import terminal

        on = terminal.console(stream)
        for renderable in renderables:
            # Commands are pasted from these lines: only the terminal itself may fold them.
            on.print(renderable, soft_wrap=isinstance(renderable, Text))
            if self._log is not None:
                self.note(terminal.text_of(renderable))


def spoken(command: Callable[..., int]) -> Callable[..., int]:
    """Let a command speak: it is handed a Speech instead of its flags, and its errors become text and exit code."""

    @functools.wraps(command)
    def invoke(*, speech: SpeechFlags, **arguments: Any) -> int:
        voice = Speech(SpeechFlags(speech.as_json, speech.verbose))
        try:
            voice = Speech(speech)
            return command(speech=voice, **arguments)
        except ShardmigError as error:
            return refuse(voice, error)
        except KeyboardInterrupt:
            return _fail(voice, "interrupted", "the same command again goes on", ExitCode.INTERRUPTED)
        except BrokenPipeError:
            raise
        except OSError as error:
            refused = _refusal_of(error)
            return _internal(voice, error) if refused is None else refuse(voice, refused)
        except Exception as error:  # noqa: BLE001 - the last place that can tell the user
            return _internal(voice, error)
        finally:
            voice.close()

    invoke.__annotations__ = command.__annotations__ | {"speech": SpeechFlags}
    return invoke


def refuse(voice: Speech, error: ShardmigError) -> int:
    """Say what is wrong in one paragraph; returns the exit code."""
    from shardmig.report.words import printable

    where = [f"run {error.run}" if error.run else "", f"field {error.field}" if error.field else ""]
    named = " (" + ", ".join(part for part in where if part) + ")" if any(where) else ""
    if voice.is_verbose:
        voice.say("".join(traceback.format_exception(error)).rstrip())
    return _fail(voice, printable(error.message) + printable(named), printable(error.hint), exit_code_of(error))


def _refusal_of(error: OSError) -> ShardmigError | None:
    """What the computer refuses is no defect of shardmig. None for anything else."""
    where = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFull(f"the disk is full: {where}", hint="free space, then give the same command again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UsageError(
            f"may not use {where}", hint="choose another folder with -d and -f, or change its permissions"
        )
    return None


def _internal(voice: Speech, error: Exception) -> int:
    text = "".join(traceback.format_exception(error))
    with tempfile.NamedTemporaryFile(
        "w", prefix="shardmig-error-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.write(text)
    if voice.is_verbose:
        voice.say(text.rstrip())
    message = f"internal error: {type(error).__name__}: {error}"
    return _fail(voice, message, f"please report it with {file.name}; what is done is kept", ExitCode.INTERNAL)


def _fail(voice: Speech, message: str, hint: str, code: ExitCode) -> int:
    voice.say(f"shardmig: {message}" + (f"\n  {hint}" if hint else ""))
    if voice.as_json:
        _write_json({"error": message, "hint": hint, "exit_code": int(code)})
    return code


def _write_json(document: Any) -> None:
    from shardmig import codec

    sys.stdout.write(codec.encode_json(document).decode("utf-8") + "\n")
    sys.stdout.flush()
