"""Every command of README, CONTRIBUTING and docs/ is executed here, as it stands there."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.docs_commands import Block, read_blocks
from tests.made_once import demo_project

__all__ = ["demo_project"]

_ROOT = Path(__file__).parents[2]
_SAMPLES = _ROOT / "tests" / "samples"
_PAGES = [_ROOT / "README.md", _ROOT / "CONTRIBUTING.md", *sorted((_ROOT / "docs").glob("*.md"))]

# Commands that prepare the checkout or execute all tests, this one included: here they would chase their own tail.
_EXECUTED_ELSEWHERE = {
    "./scripts/quickstart": "tests/e2e/test_quickstart.py",
    "./scripts/test": ".ci/run",
    "./scripts/bench": "by hand: it keeps a machine busy for minutes",
    "./scripts/bench --full": "by hand: for half an hour",
}


@pytest.mark.long
@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_do_what_it_says(page: Path, workplace: Path) -> None:
    with contextlib.ExitStack() as servers:
        for block in read_blocks(page):
            block = block._replace(text=_without(block.text, _EXECUTED_ELSEWHERE))
            if not block.text.strip():
                continue
            if block.serves:
                servers.enter_context(_server(block, workplace))
            else:
                _execute(block, workplace)


def test_a_page_is_read_as_a_program(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\none\n```\n```text\nshown\n```\n<!-- exit: 3 -->\n```bash\ntwo\n```\n"
        "- in a list:\n  <!-- serves: http://localhost:5000 -->\n  ```python\n  if True:\n      three\n  ```\n"
    )
    assert list(read_blocks(page)) == [
        Block("page.md:1", "bash", "one\n"),
        Block("page.md:8", "bash", "two\n", exit_code=3),
        Block("page.md:13", "python", "if True:\n    three\n", serves="http://localhost:5000"),
    ]
    page.write_text("```sh\nescapes the test\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:1"):
        list(read_blocks(page))


def test_what_is_executed_elsewhere_is_executed_there() -> None:
    for command, place in _EXECUTED_ELSEWHERE.items():
        if (file := _ROOT / place).is_file():
            assert command.removeprefix("./scripts/").split()[0] in file.read_text(), (command, place)


@pytest.fixture
def workplace(tmp_path: Path, demo_project: Path, free_port: int) -> Path:
    """A folder that holds what the pages speak of: Neptune's own folders, and an archive of neptune-exporter."""
    folder = tmp_path / "workplace"
    folder.mkdir()
    for name in (".neptune", ".neptune-scale", "files"):
        shutil.copytree(demo_project / name, folder / name)
    for part in ("data", "files"):
        shutil.copytree(_SAMPLES / "exporter-3x" / part, folder / "exporter-archive" / part)
    shutil.copytree(_SAMPLES / "mlflow-export-import" / "all", folder / "old-export")
    (folder / "scripts").symlink_to(_ROOT / "scripts")
    os.environ["DOCS_PORT"] = str(free_port)
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return folder


@pytest.fixture
def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _without(text: str, commands: dict[str, str]) -> str:
    return "\n".join(line for line in text.splitlines() if line.strip() not in commands) + "\n"


def _command(block: Block) -> list[str]:
    text = _with_port(block.text)
    return [sys.executable, "-c", text] if block.language == "python" else ["bash", "-euo", "pipefail", "-c", text]


def _with_port(text: str) -> str:
    return text.replace(":5000", f":{os.environ['DOCS_PORT']}").replace(
        "--port 5000", f"--port {os.environ['DOCS_PORT']}"
    )


def _execute(block: Block, folder: Path) -> None:
    result = subprocess.run(
        _command(block), cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=240
    )
    assert result.returncode == block.exit_code, (
        f"{block.place} ended with {result.returncode}, not {block.exit_code}\n{block.text}\n"
        f"{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    )


@contextlib.contextmanager
def _server(block: Block, folder: Path) -> Iterator[None]:
    log = folder / "server.log"
    with open(log, "wb") as output:
        server = subprocess.Popen(
            _command(block), cwd=folder, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        _wait_for(_with_port(block.serves), server, log)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + 120
    while time.monotonic() < give_up and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            assert answer.status == 200
            return
        time.sleep(0.2)
    pytest.fail(f"{url} does not answer\n{log.read_text()[-3000:]}")
