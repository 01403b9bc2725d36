"""Reads the documentation as a program: which commands it gives, in which order, with which ending.

The convention, on every page:
- a ```bash or ```python block is executed; blocks of a page are executed in order, in one scratch folder per page;
- `<!-- exit: 3 -->` on the line above a block is the exit code that the block must end with (default 0);
- `<!-- serves: URL -->` on the line above a block: the block starts a server; the page goes on when URL answers;
- a ```text, ```toml, ```json or ```sql block shows something and is not executed; other blocks are refused.
Port 5000 stands for any free port.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

EXECUTED: Final = ("bash", "python")
_SHOWN: Final = ("text", "toml", "json", "sql")
_FENCE: Final = re.compile(r"^(?P<indent> *)```(?P<language>\S*)\s*$")
_REMARK: Final = re.compile(r"^\s*<!-- (?P<key>exit|serves): (?P<value>\S+) -->\s*$")


class Block(NamedTuple):
    """One fenced block that is executed. `exit_code` is what it must end with; `serves` is empty or a URL."""

    place: str
    language: str
    text: str
    exit_code: int = 0
    serves: str = ""


def read_blocks(page: Path) -> Iterator[Block]:
    """The executed blocks of a page, in order. Raises AssertionError for a block in a language without meaning."""
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), start=1))
    above = ""
    for number, line in lines:
        fence = _FENCE.match(line)
        if fence is None:
            above = line
            continue
        place, language = f"{page.name}:{number}", fence["language"]
        assert language in EXECUTED + _SHOWN, f"{place}: a block is one of {EXECUTED + _SHOWN}, not {language!r}"
        indent = len(fence["indent"])
        body = []
        for _, inner in lines:
            if inner.strip() == "```":
                break
            body.append(inner[indent:])
        if language in EXECUTED:
            yield _with_remark(Block(place, language, "\n".join(body) + "\n"), above)
        above = ""


def _with_remark(block: Block, above: str) -> Block:
    remark = _REMARK.match(above)
    if remark is None:
        return block
    return (
        block._replace(exit_code=int(remark["value"]))
        if remark["key"] == "exit"
        else block._replace(serves=remark["value"])
    )
