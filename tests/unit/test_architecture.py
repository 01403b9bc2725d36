"""The shape that docs/architecture.md promises, held by machine."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

_ROOT = Path(__file__).parents[2]
_DOCS = [_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))]
_VENDORS = ("mlflow", "neptune", "neptune_scale", "neptune_query", "wandb", "comet_ml", "zenml", "litlogger", "ray")
_HEAVY = ("pandas", "sqlalchemy", "alembic", "requests", "pyarrow")


def test_help_imports_no_vendor_sdk_and_nothing_heavy() -> None:
    script = (
        "import sys, json\n"
        "from shardmig.cli import main\n"
        "sys.argv = ['shardmig', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(result.stdout.splitlines()[-1])}
    assert loaded.isdisjoint(_VENDORS + _HEAVY), loaded.intersection(_VENDORS + _HEAVY)


@pytest.mark.parametrize("module", sorted((_ROOT / "shardmig").rglob("*.py")), ids=lambda path: path.stem)
def test_a_module_stays_small_enough_to_read(module: Path) -> None:
    lines = module.read_text().splitlines()
    assert len(lines) <= 400, f"{module.relative_to(_ROOT)} has {len(lines)} lines"


def test_everything_is_caught_only_where_a_promise_not_to_raise_is_held() -> None:
    found = {
        name
        for name, text in _modules()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ExceptHandler) and _catches_everything(node)
    }
    ray = "shardmig/engines/ray.py"  # which raises a bare Exception when its processes start too slowly
    assert found == {"shardmig/worker/task.py", "shardmig/cli/speech.py", "shardmig/engines/base.py", ray}


def test_only_the_cli_prints_or_exits() -> None:
    loud = re.compile(r"(?<![\w.])print\(|sys\.exit\(|raise SystemExit")
    assert [name for name, text in _modules() if loud.search(text) and not name.startswith("shardmig/cli/")] == []


def test_every_option_of_every_command_is_explained_in_its_help() -> None:
    silent = [
        f"{name} {'/'.join(parameter.opts)}"
        for name, command in _commands()
        for parameter in command.params
        if isinstance(parameter, TyperOption) and not parameter.hidden and not (parameter.help or "").strip()
    ]
    assert silent == []


def test_every_option_is_in_the_docs() -> None:
    text = "\n".join(page.read_text() for page in _DOCS)
    missing = sorted(
        {
            option
            for _, command in _commands()
            for parameter in command.params
            if isinstance(parameter, TyperOption) and not parameter.hidden
            for option in parameter.opts
            if option.startswith("--") and option != "--help" and not re.search(rf"{option}(?![\w-])", text)
        }
    )
    assert missing == []


def test_every_command_is_in_the_docs() -> None:
    text = "\n".join(page.read_text() for page in _DOCS)
    assert [name for name, _ in _commands() if f"shardmig {name}" not in text] == []


def test_the_page_of_exit_codes_lists_the_promised_ones() -> None:
    from shardmig.cli.exits import ExitCode

    rows = re.findall(r"^\| *(\d+) *\|", (_ROOT / "docs" / "exit-codes.md").read_text(), re.MULTILINE)
    assert [int(code) for code in rows] == sorted(ExitCode)


def test_every_reason_code_is_explained() -> None:
    page = (_ROOT / "docs" / "reason-codes.md").read_text()
    codes = {code for name, text in _modules() if "/conformance/" not in name for code in _reason_codes(text)}
    assert sorted(code for code in codes if f"`{code}`" not in page) == []


def test_every_link_between_the_docs_leads_somewhere() -> None:
    pages = [*_DOCS, _ROOT / "CONTRIBUTING.md", _ROOT / "CHANGELOG.md"]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def _modules() -> Iterator[tuple[str, str]]:
    for module in sorted((_ROOT / "shardmig").rglob("*.py")):
        yield module.relative_to(_ROOT).as_posix(), module.read_text()


def _reason_codes(text: str) -> Iterator[str]:
    """Second argument of every call whose first is the kind of a finding."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(
                args=[ast.Constant(value="loss" | "gap" | "approximation" | "note"), ast.Constant(value=code), *_]
            ):
                yield str(code)


def _catches_everything(handler: ast.ExceptHandler) -> bool:
    """Cleaning up and raising again is not catching."""
    kinds = "BaseException" if handler.type is None else ast.unparse(handler.type)
    ends_with_raise = isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None
    return bool(re.search(r"(?<!\w)(Base)?Exception\b", kinds)) and not ends_with_raise


def _commands() -> Iterator[tuple[str, TyperCommand]]:
    from shardmig.cli.app import app

    yield from _commands_of(typer.main.get_command(app), "")


def _commands_of(group: object, before: str) -> Iterator[tuple[str, TyperCommand]]:
    """Those of a group of commands, and of the groups in it."""
    assert isinstance(group, TyperGroup)
    for name, command in sorted(group.commands.items()):
        if isinstance(command, TyperGroup):
            yield from _commands_of(command, f"{before}{name} ")
        else:
            assert isinstance(command, TyperCommand)
            yield f"{before}{name}", command
