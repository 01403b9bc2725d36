"""The HTML page."""

from __future__ import annotations

from html.parser import HTMLParser

from shardmig.records import Report
from shardmig.report.page import page

ALLOWED = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "h1",
    "h2",
    "p",
    "strong",
    "table",
    "tr",
    "th",
    "td",
    "br",
    "code",
}


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _read(report: Report) -> _Elements:
    elements = _Elements()
    elements.feed(page(report, title="shardmig load", meaning="some runs failed", ended_ms=1_717_156_800_000))
    elements.close()
    return elements


def test_names_of_fields_and_runs_add_no_element_and_no_control_character(report: Report) -> None:
    elements = _read(report)
    assert {tag for tag, _ in elements.seen} <= ALLOWED
    assert elements.open == []
    assert "\x1b" not in "".join(elements.text)
    assert "\u202e" not in "".join(elements.text)
    assert any("<script>alert('1')</script>" in text for text in elements.text)


def test_nothing_is_loaded_from_elsewhere(report: Report) -> None:
    for tag, attributes in _read(report).seen:
        assert not {"src", "href", "action", "onclick"} & set(attributes), tag


def test_it_tells_totals_failures_with_their_retry_and_reasons(report: Report) -> None:
    text = "\n".join(_read(report).text)
    for expected in (
        "1,234,567",
        "some runs failed",
        "shardmig retry --shard 00001",
        "bring it back",
        "infinity",
        "a1b2",
    ):
        assert expected in text
