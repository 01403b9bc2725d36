from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from shardmig.records import Field, FieldDigest, FileRef, Finding
from shardmig.worker.differences import FieldKey, Small, fact_differences, only_one_has_it, retyped, small_differences

FILE = FileRef(path="model", type="file", stored="x", name="model.pt", size_bytes=10, sha256="a" * 64)


def codes(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.code, finding.field) for finding in findings]


def test_equal_scalars_and_files_have_no_differences() -> None:
    small: list[Small] = [Field("lr", "float", float("nan")), FILE]
    assert list(small_differences(small, [Field("lr", "float", float("nan")), FILE])) == []


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        (Field("x", "float", 0.0), Field("x", "float", -0.0)),
        (Field("x", "int", 1), Field("x", "int", 2)),
        (Field("x", "string", "a"), Field("x", "string", "b")),
        (Field("x", "string_set", ["a"]), Field("x", "string_set", [])),
        (Field("x", "bool", True), Field("x", "bool", False)),
        (Field("x", "datetime", 0), Field("x", "datetime", 1)),
    ],
)
def test_a_changed_scalar_is_a_difference_of_value(expected: Field, found: Field) -> None:
    (finding,) = small_differences([expected], [found])
    assert (finding.kind, finding.code, finding.field) == ("loss", "values-differ", "x")
    assert "expected" in finding.detail
    assert "found" in finding.detail


def test_long_texts_are_shown_where_they_begin_to_differ() -> None:
    (finding,) = small_differences(
        [Field("x", "string", "a" * 6000 + "one")], [Field("x", "string", "a" * 6000 + "two")]
    )
    assert finding.detail == "from character 6000: expected …'aaaaaaaaaaone', found …'aaaaaaaaaatwo'"


def test_a_cut_text_is_shown_at_its_cut() -> None:
    (finding,) = small_differences([Field("x", "string", "a" * 6000)], [Field("x", "string", "a" * 5999)])
    assert finding.detail == "from character 5999: expected …'aaaaaaaaaaa', found …'aaaaaaaaaa'"


def test_a_file_may_differ_in_content_name_and_time() -> None:
    other = msgspec.structs.replace(FILE, sha256="b" * 64, size_bytes=9, name="other.pt", time_ms=5)
    found = list(small_differences([FILE], [other]))
    assert codes(found) == [("file-differs", "model"), ("file-name-differs", "model"), ("times-differ", "model")]
    assert found[0].detail == "expected 10 bytes, sha256 aaaaaaaaaaaa, found 9 bytes, sha256 bbbbbbbbbbbb"


def test_of_several_files_at_one_step_each_is_compared() -> None:
    def image(name: str, sha256: str) -> FileRef:
        return msgspec.structs.replace(
            FILE, path="image", type="file_series", step=Decimal(1), name=name, sha256=sha256 * 64
        )

    three = [image("a.png", "a"), image("1-a.png", "b"), image("2-a.png", "c")]
    assert list(small_differences(three, three[::-1])) == []
    (changed,) = small_differences(three, [three[0], image("1-a.png", "d"), three[2]])
    assert (changed.code, changed.count) == ("file-differs", 1)
    (gone,) = small_differences(three, three[2:])
    assert (gone.code, gone.count) == ("file-missing", 2)


def test_each_step_of_a_file_series_is_compared() -> None:
    def image(step: str) -> FileRef:
        return msgspec.structs.replace(FILE, path="image", type="file_series", step=Decimal(step))

    found = list(small_differences([image("0"), image("1"), image("2")], [image("0"), image("0.5")]))
    by_code = {finding.code: finding for finding in found}
    assert by_code.keys() == {"file-missing", "file-extra"}
    assert by_code["file-missing"].count == 2
    assert by_code["file-missing"].detail.startswith("step 1: ")
    assert by_code["file-extra"].detail.startswith("step 0.5: ")


def test_fields_on_one_side_and_fields_of_another_type_are_told_apart() -> None:
    expected: dict[FieldKey, FieldDigest] = {
        ("a", "int"): FieldDigest("a", "int", 1, "x"),
        ("b", "int"): FieldDigest("b", "int", 1, "x"),
        ("f", "file"): FieldDigest("f", "file", 1, "x"),
    }
    found: dict[FieldKey, FieldDigest] = {
        ("a", "string"): FieldDigest("a", "string", 1, "x"),
        ("c", "float_series"): FieldDigest("c", "float_series", 7, "x"),
    }
    keys = expected.keys() | found.keys()
    assert {path: finding.detail for path, finding in retyped(expected, found, keys).items()} == {
        "a": "expected int, found string"
    }
    one_sided = [only_one_has_it(key, expected.get(key), found.get(key)) for key in sorted(keys)]
    assert [
        (finding.code, finding.field, finding.count) for finding in one_sided if finding and finding.field != "a"
    ] == [
        ("field-missing", "b", 1),
        ("field-extra", "c", 7),
        ("file-missing", "f", 1),
    ]


def test_run_facts_that_differ_have_codes_of_their_own() -> None:
    expected = {
        "status": "FINISHED",
        "start_time": "1000",
        "end_time": "2000",
        "name": "one",
        "parent": "p",
        "tag:mlflow.parentRunId": "p",
        "tag:a": "1",
        "tag:b": "1",
        "experiment": "e",
        "same": "same",
    }
    found = {"status": "FAILED", "start_time": "1001", "name": "two", "tag:b": "2", "tag:users": "own", "same": "same"}
    findings = list(fact_differences(expected, found))
    assert dict(sorted((finding.field, finding.code) for finding in findings)) == {
        "end_time": "times-differ",
        "experiment": "fact-differs",
        "name": "name-differs",
        "parent": "lineage-differs",
        "start_time": "times-differ",
        "status": "status-differs",
        "tag:a": "tag-missing",
        "tag:b": "tag-differs",
        "tag:mlflow.parentRunId": "lineage-differs",
        "tag:users": "tag-extra",
    }
    assert {finding.field for finding in findings if finding.kind == "note"} == {"tag:users"}
    assert next(one.detail for one in findings if one.field == "start_time") == (
        "expected 1970-01-01T00:00:01.000+00:00, found 1970-01-01T00:00:01.001+00:00"
    )
