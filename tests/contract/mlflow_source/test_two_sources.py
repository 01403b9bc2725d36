"""Two sources are copied into one target: both are there whole, and neither copy takes the other for its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.tracking._tracking_service.utils import _use_tracking_uri

from tests.contract.mlflow_source.copies import Copy
from tests.contract.mlflow_source.marks import doubled_or_half
from tests.contract.mlflow_source.plain_traces import make_trace
from tests.contract.mlflow_source.test_experiments_kept import named
from tests.contract.mlflow_source.test_objects_kept import INLINE, MERGE, copy, refusing

__all__ = ["copy"]

NOWHERE = "shardmig:/not-here/"
REPLACE = (*INLINE, "--update", "--on-existing", "replace")


@pytest.fixture
def second(copy: Copy, sqlite_template: Path) -> Copy:
    """Another source for the same target."""
    folder = copy.folder / "second"
    folder.mkdir()
    (folder / "source.db").write_bytes(sqlite_template.read_bytes())
    return Copy(folder, f"sqlite:///{folder}/source.db", copy.target)


def fill(uri: str, words: str, number: int) -> None:
    """Experiments, a model, a prompt, a trace and a run of names that both sources have."""
    client = MlflowClient(uri)
    churn = client.create_experiment("churn", tags={"owner": words})
    for experiment in ("0", churn):
        run = client.create_run(experiment, run_name=words).info.run_id
        client.log_metric(run, "loss", 0.5)
    client.create_registered_model("model", description=words)
    client.create_model_version("model", f"runs:/{run}/model", run, description=words)
    client.register_prompt("prompt", f"say {words}")
    client.create_logged_model(churn, words)
    make_trace(client, churn, number)


def apart(second: Copy) -> tuple[str, ...]:
    """How the second source gets names of its own."""
    names = second.folder / "names.csv"
    names.write_text("model,second model\nprompt,second prompt\n")
    return ("--name-prefix", "second", "--model-rename-file", str(names))


def there(uri: str) -> dict[str, Any]:
    """What a target holds, by names: descriptions of models and their versions, names of runs."""
    client = MlflowClient(uri)
    experiments = client.search_experiments(ViewType.ALL)
    models = client.search_registered_models()
    return {
        one.name: sorted(run.info.run_name for run in client.search_runs([one.experiment_id])) for one in experiments
    } | {
        f"model {one.name}": [
            one.description,
            *(two.description for two in client.search_model_versions(f"name = '{one.name}'")),
        ]
        for one in models
    }


def test_what_two_sources_brought_is_copied_on_whole(copy: Copy, second: Copy) -> None:
    """Models that were copied from one another, too, and one that people made here under a name that a copy had before."""
    for source, words in ((copy.source, "first"), (second.source, "other")):
        fill(source, words, 1 if words == "first" else 2)
        client = MlflowClient(source)
        client.create_registered_model("a model of it")
        client.create_model_version("a model of it", "models:/model/1")
    names = apart(second)
    Path(names[-1]).write_text(
        "model,second model\nprompt,second prompt\na model of it,second model of it\nown,second own\n"
    )
    MlflowClient(second.source).create_registered_model("own", description="brought")
    copy.migrate(*INLINE)
    second.migrate(*INLINE, *names)
    MlflowClient(copy.target).create_registered_model("own", description="made here")
    folder = copy.folder / "on"
    folder.mkdir()
    on = Copy(folder, copy.target, f"sqlite:///{folder}/on.db")
    found = on.findings(*INLINE)
    assert "copy-beside-original" in {one["code"] for one in found}
    assert on.verify() == ["equal"] * 20
    before, after = there(copy.target), there(on.target)
    assert before.keys() == after.keys()
    assert {key: one for key, one in after.items() if key.startswith("model ")} == {
        key: one for key, one in before.items() if key.startswith("model ")
    }
    [version] = MlflowClient(on.target).search_model_versions("name = 'second model of it'")
    assert version.source == "models:/second model/1"


def linked_prompts(uri: str) -> list[list[tuple[str, str]]]:
    """Of the traces 1 and 2, by their tags and by the links of the database."""
    store: Any = MlflowClient(uri)._tracking_client.store
    traces = [f"tr-{number:032x}" for number in (1, 2)]
    tags = [json.loads(store.get_trace_info(one).tags["mlflow.linkedPrompts"]) for one in traces]
    links = [store.search_entities_by_source(one, "trace", "prompt_version").to_list() for one in traces]
    assert links == [[f"{one['name']}/{one['version']}" for one in linked] for linked in tags]
    return [[(one["name"], one["version"]) for one in linked] for linked in tags]


def test_a_trace_is_linked_to_the_prompt_of_its_own_source_here_and_wherever_it_is_copied_on(
    copy: Copy, second: Copy
) -> None:
    for source, words, number in ((copy.source, "first", 1), (second.source, "other", 2)):
        fill(source, words, number)
        client = MlflowClient(source)
        with _use_tracking_uri(source):
            client.link_prompt_versions_to_trace([client.get_prompt_version("prompt", 1)], f"tr-{number:032x}")
    copy.migrate(*INLINE)
    second.migrate(*INLINE, *apart(second))
    expected = [[("prompt", "1")], [("second prompt", "1")]]
    assert linked_prompts(copy.target) == expected
    assert set(second.verify(*INLINE, *apart(second))) == {"equal"}
    folder = copy.folder / "on"
    folder.mkdir()
    on = Copy(folder, copy.target, f"sqlite:///{folder}/on.db")
    on.migrate(*INLINE)
    assert linked_prompts(on.target) == expected
    assert set(on.verify()) == {"equal"}


def test_two_sources_are_whole_in_one_target_under_names_of_their_own(copy: Copy, second: Copy) -> None:
    fill(copy.source, "first", 1)
    fill(second.source, "other", 2)
    options = (*INLINE, *apart(second))
    held: list[dict[str, Any]] = []
    for _ in range(2):
        copy.migrate(*INLINE)
        second.migrate(*options)
        assert set(copy.verify(*INLINE)) == {"equal"}
        assert set(second.verify(*options)) == {"equal"}
        assert doubled_or_half(copy.target) == []
        held.append(there(copy.target))
    assert held[0] == held[1]
    assert held[0] == {
        "Default": ["first"],
        "churn": ["first"],
        "second/Default": ["other"],
        "second/churn": ["other"],
        "model model": ["first", "first"],
        "model second model": ["other", "other"],
    } | {name: text for name, text in held[0].items() if "prompt" in name}
    prompts = [
        (one.name, MlflowClient(copy.target).get_prompt_version(one.name, 1).template)
        for one in MlflowClient(copy.target).search_prompts()
    ]
    assert sorted(prompts) == [("prompt", "say first"), ("second prompt", "say other")]


def test_experiments_of_one_name_are_one_that_takes_the_runs_of_both_sources(copy: Copy, second: Copy) -> None:
    for one, words in ((copy, "first"), (second, "other")):
        client = MlflowClient(one.source)
        client.create_run(client.create_experiment("churn", tags={"owner": words}), run_name=words)
        client.create_run("0", run_name=words)
    for _ in range(2):
        copy.migrate(*INLINE)
        second.migrate(*INLINE)
        assert set(copy.verify(*INLINE)) == {"equal"}
        assert set(second.verify(*INLINE)) == {"equal"}
    assert there(copy.target) == {"Default": ["first", "other"], "churn": ["first", "other"]}
    assert named(MlflowClient(copy.target), "churn").tags["owner"] == "first"


def test_what_changes_in_one_of_two_sources_leaves_the_copy_of_the_other_alone(copy: Copy, second: Copy) -> None:
    for one, words in ((copy, "first"), (second, "other")):
        client = MlflowClient(one.source)
        client.create_run(client.create_experiment("churn", tags={words: "1"}), run_name=words)
        one.migrate(*INLINE)
    tags = named(MlflowClient(copy.target), "churn").tags
    for one, words in ((copy, "first"), (second, "other")):
        client = MlflowClient(one.source)
        client.set_experiment_tag(named(client, "churn").experiment_id, words, "2")
        one.migrate(*(MERGE if one is copy else REPLACE))
    now = named(MlflowClient(copy.target), "churn").tags
    assert (now["first"], now["other"]) == ("2", "2")
    ours = [tag for tag in tags if tag.startswith("shardmig.")]
    assert [tag for tag in ours if now.get(tag) is None] == []
    assert set(copy.verify(*INLINE)) == {"equal"}
    assert set(second.verify(*INLINE)) == {"equal"}


@pytest.mark.parametrize("on_existing", ["fail", "merge", "replace"])
def test_a_model_of_the_other_source_is_refused_by_name_and_never_changed(
    copy: Copy, second: Copy, on_existing: str
) -> None:
    for one, words in ((copy, "first"), (second, "other")):
        client = MlflowClient(one.source)
        client.create_registered_model("model", description=words)
        client.create_model_version("model", "s3://bucket/one", description=words)
        client.register_prompt("prompt", f"say {words}")
    copy.migrate(*INLINE)
    before = there(copy.target)
    told = second._told(second.migration(*INLINE, "--max-attempts", "1", "--on-existing", on_existing), 3)
    failures = {one["run"]["id"]: one["failure"] for one in told["outcomes"]["load"] if one["state"] == "failed"}
    assert set(failures) == {"model", "prompt"}
    assert all("another source" in one["message"] and "--model-rename-file" in one["hint"] for one in failures.values())
    assert there(copy.target) == before
    assert set(copy.verify(*INLINE)) == {"equal"}
    copy.migrate(*INLINE)
    assert there(copy.target) == before


def test_an_experiment_of_two_sources_is_not_deleted_because_one_of_them_deleted_its_own(
    copy: Copy, second: Copy
) -> None:
    for one in (copy, second):
        client = MlflowClient(one.source)
        client.create_run(client.create_experiment("churn"))
        one.migrate(*INLINE)
    for one in (copy, second):
        client = MlflowClient(one.source)
        client.delete_experiment(named(client, "churn").experiment_id)
        assert "churn" in one.failing(*MERGE)
        assert named(MlflowClient(copy.target), "churn").lifecycle_stage == "active"


def test_two_experiments_that_get_one_name_share_it(copy: Copy) -> None:
    client = MlflowClient(copy.source)
    for name in ("old", "new"):
        client.create_run(client.create_experiment(name, tags={"owner": name}), run_name=name)
    names = copy.folder / "names.csv"
    names.write_text("old,new\n")
    options = (*INLINE, "--experiment-rename-file", str(names))
    for _ in range(2):
        copy.migrate(*options)
        assert set(copy.verify(*options)) == {"equal"}
    assert there(copy.target) == {"Default": [], "new": ["new", "old"]}


def test_a_copied_model_that_got_another_name_in_the_target_is_found_again(copy: Copy) -> None:
    MlflowClient(copy.source).create_registered_model("model")
    copy.migrate(*INLINE)
    MlflowClient(copy.target).rename_registered_model("model", "better")
    copy.migrate(*INLINE)
    assert [one.name for one in MlflowClient(copy.target).search_registered_models()] == ["better"]


def test_a_copy_of_a_copy_is_found_again(copy: Copy, sqlite_template: Path) -> None:
    fill(copy.source, "first", 1)
    copy.migrate(*INLINE)
    folder = copy.folder / "further"
    folder.mkdir()
    (folder / "target.db").write_bytes(sqlite_template.read_bytes())
    further = Copy(folder, copy.target, f"sqlite:///{folder}/target.db")
    for _ in range(2):
        further.migrate(*MERGE)
        assert set(further.verify(*INLINE)) == {"equal"}
    assert there(further.target) == there(copy.target)


def fill_copied(uri: str, words: str) -> None:
    """A model that both sources have, and one that a version of it was copied to."""
    client = MlflowClient(uri)
    for name, source in (("churn", f"s3://bucket/{words}"), (f"promoted {words}", "models:/churn/1")):
        client.create_registered_model(name, description=words)
        client.create_model_version(name, source, description=words)


def source_of(uri: str, name: str, number: str = "1") -> str:
    """Where a version of a model is from."""
    return str(MlflowClient(uri).get_model_version(name, number).source)


def test_a_version_that_was_copied_from_a_refused_model_does_not_refer_to_that_of_the_other_source(
    copy: Copy, second: Copy
) -> None:
    """Once its own model is here under another name, it refers to that one."""
    for one, words in ((copy, "first"), (second, "other")):
        fill_copied(one.source, words)
    copy.migrate(*INLINE)
    for _ in range(2):
        assert "churn" in second.failing(*INLINE)
        assert source_of(copy.target, "promoted first") == "models:/churn/1"
        assert source_of(copy.target, "promoted other").startswith(NOWHERE)
    assert second.verify(*INLINE, code=5) == ["equal", "equal", "missing"]
    names = second.folder / "names.csv"
    names.write_text("churn,second churn\n")
    for _ in range(2):
        second.migrate(*INLINE, "--model-rename-file", str(names))
        assert source_of(copy.target, "promoted other") == "models:/second churn/1"
        assert set(second.verify(*INLINE, "--model-rename-file", str(names))) == {"equal"}
    assert set(copy.verify(*INLINE)) == {"equal"}


def test_a_version_does_not_refer_to_what_people_made_here_under_the_name_or_number_it_was_copied_from(
    copy: Copy,
) -> None:
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    fill_copied(copy.source, "first")
    source.create_registered_model("other")
    source.create_model_version("other", "s3://bucket/other")
    source.create_registered_model("promoted from other")
    source.create_model_version("promoted from other", "models:/other/1")
    target.create_registered_model("other")
    target.create_model_version("other", "s3://bucket/of/people")
    assert "other" in copy.failing(*INLINE)
    assert source_of(copy.target, "promoted from other").startswith(NOWHERE)
    assert source_of(copy.target, "promoted first") == "models:/churn/1"
    target.create_model_version("churn", "s3://bucket/of/people")
    source.create_model_version("churn", "s3://bucket/second")
    source.create_model_version("promoted first", "models:/churn/2")
    reported = copy.migrate(*MERGE, "--max-attempts", "1", code=3)
    assert {"versions/2"} <= reported["version-number-taken"]
    assert source_of(copy.target, "promoted first", "2").startswith(NOWHERE)


def test_a_version_does_not_refer_to_one_of_its_number_that_another_copy_of_the_model_brought(
    copy: Copy, second: Copy
) -> None:
    """The second source is a copy of the first, and both go on."""
    fill_copied(copy.source, "first")
    between = Copy(second.folder / "between", copy.source, second.source)
    between.folder.mkdir()
    for one in (copy, between):
        one.migrate(*INLINE)
    MlflowClient(second.source).create_model_version("churn", "s3://bucket/of/the/copy")
    second.migrate(*MERGE)
    source = MlflowClient(copy.source)
    source.create_model_version("churn", "s3://bucket/second")
    for number in (1, 2):
        source.create_model_version("promoted first", f"models:/churn/{number}")
    assert copy.failing(*MERGE) == {"churn"}
    assert source_of(copy.target, "churn", "2") == "s3://bucket/of/the/copy"
    assert source_of(copy.target, "promoted first", "2") == "models:/churn/1"
    assert source_of(copy.target, "promoted first", "3").startswith(NOWHERE)


@pytest.mark.parametrize("name", ["model", "prompt"])
def test_a_model_that_one_source_only_began_is_not_taken_over_by_the_other(copy: Copy, second: Copy, name: str) -> None:
    for one, words in ((copy, "first"), (second, "other")):
        client = MlflowClient(one.source)
        client.create_registered_model("model", description=words)
        client.create_model_version("model", "s3://bucket/one", description=words)
        client.register_prompt("prompt", f"say {words}")
    table = "registered_model_tags"
    with refusing(copy, "INSERT", table, f"NEW.name = '{name}' AND NEW.key LIKE 'shardmig.changes%'"):
        assert copy.failing(*INLINE) == {name}
    assert name in second.failing(*INLINE)
    copy.migrate(*INLINE)
    assert set(copy.verify(*INLINE)) == {"equal"}
    assert doubled_or_half(copy.target) == []


def test_an_experiment_is_not_deleted_while_it_holds_runs_of_a_source_whose_own_is_yet_to_come(
    copy: Copy, second: Copy
) -> None:
    for one, words in ((copy, "first"), (second, "other")):
        client = MlflowClient(one.source)
        client.create_run(client.create_experiment("churn"), run_name=words)
    client = MlflowClient(copy.source)
    client.delete_experiment(named(client, "churn").experiment_id)
    second.migrate(*INLINE, "--source-option", "objects=runs")
    for _ in range(2):
        assert copy.failing(*INLINE) == {"churn"}
        assert there(copy.target)["churn"] == ["other"]
        assert named(MlflowClient(copy.target), "churn").lifecycle_stage == "active"
    second.migrate(*INLINE)
    assert there(copy.target)["churn"] == ["other"]
    assert set(second.verify(*INLINE)) == {"equal"}
