"""Runs as W&B's own client leaves them on a disk, written with its protobuf classes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shardmig.adapters.wandb.log import LogWriter
from shardmig.adapters.wandb.records import messages

START_MS = 1_700_000_000_000


class Recording:
    """The records of one log."""

    def __init__(
        self, run_id: str, project: str, *, entity: str = "ent", start_ms: int = START_MS, **facts: Any
    ) -> None:
        self.id = run_id
        self.records: list[Any] = []
        self.start_ms = start_ms
        pb = messages()
        self._pb = pb
        self.records.append(pb.Record(header=pb.HeaderRecord(version_info=pb.VersionInfo(producer="0.31.0"))))
        run = pb.RunRecord(run_id=run_id, project=project, entity=entity, **facts)
        run.start_time.FromMilliseconds(start_ms)
        self.run = run
        self.records.append(pb.Record(run=run))

    def config(self, tree: dict[str, Any]) -> None:
        """A change of the config."""
        items = [self._pb.ConfigItem(key=key, value_json=json.dumps(value)) for key, value in tree.items()]
        self.records.append(self._pb.Record(config=self._pb.ConfigRecord(update=items)))

    def row(self, step: int, values: dict[str, Any], *, time_s: float | None = None) -> None:
        """A row of the history, nested values in parts as the client writes them."""
        time_s = self.start_ms / 1000 + step if time_s is None else time_s
        leaves = [([key], value) for key, value in {**values, "_step": step, "_timestamp": time_s}.items()]
        history = self._pb.HistoryRecord(step=self._pb.HistoryStep(num=step))
        while leaves:
            keys, value = leaves.pop()
            if isinstance(value, dict):
                leaves += [([*keys, name], below) for name, below in value.items()]
            else:
                history.item.add(nested_key=keys, value_json=json.dumps(value))
        self.records.append(self._pb.Record(history=history))

    def stats(self, time_ms: int, values: dict[str, float]) -> None:
        """Measurements of the computer."""
        stats = self._pb.StatsRecord()
        stats.timestamp.FromMilliseconds(time_ms)
        for key, value in values.items():
            stats.item.add(key=key, value_json=json.dumps(value))
        self.records.append(self._pb.Record(stats=stats))

    def line(self, text: str, *, stream: str = "STDOUT", time_ms: int = START_MS) -> None:
        """Something printed."""
        output = self._pb.OutputRawRecord(output_type=self._pb.OutputRawRecord.OutputType.Value(stream), line=text)
        output.timestamp.FromMilliseconds(time_ms)
        self.records.append(self._pb.Record(output_raw=output))

    def summary(self, tree: dict[str, Any]) -> None:
        """A change of the summary."""
        items = [self._pb.SummaryItem(key=key, value_json=json.dumps(value)) for key, value in tree.items()]
        self.records.append(self._pb.Record(summary=self._pb.SummaryRecord(update=items)))

    def run_again(self, **facts: Any) -> None:
        """The run told again, as when its name, notes or tags are set."""
        self.records.append(self._pb.Record(run=self._pb.RunRecord(run_id=self.id, project=self.run.project, **facts)))

    def artifact(self, name: str, members: dict[str, Path], *, listed_in: Path | None = None, **facts: Any) -> None:
        """An artifact whose files lie on this computer. `listed_in`: a file with their list, as very large ones have."""
        record = self._pb.ArtifactRecord(name=name, type="model", **facts)
        if listed_in is not None:
            record.manifest.manifest_file_path = str(listed_in)
        for member, path in members.items():
            record.manifest.contents.add(path=member, local_path=str(path))
        self.records.append(self._pb.Record(artifact=record))

    def use(self, name: str) -> None:
        """An artifact that the run read."""
        self.records.append(self._pb.Record(use_artifact=self._pb.UseArtifactRecord(id="1", type="dataset", name=name)))

    def reference(self, url: str) -> None:
        """A member of the last artifact that lies elsewhere."""
        self.records[-1].artifact.manifest.contents.add(path=url.rpartition("/")[2], ref=url)

    def exit(self, code: int = 0, runtime_s: int = 60) -> None:
        """The end."""
        self.records.append(self._pb.Record(exit=self._pb.RunExitRecord(exit_code=code, runtime=runtime_s)))

    def write(self, root: Path, files: Iterable[tuple[str, bytes]] = (), *, name: str = "") -> Path:
        """The log in a run folder, with its files. Gives back the folder."""
        folder = root / (name or f"offline-run-20231114_221320-{self.id}")
        folder.mkdir(parents=True)
        with (folder / f"run-{self.id}.wandb").open("wb") as log:
            LogWriter(log).add_all(record.SerializeToString() for record in self.records)
        for path, content in files:
            place = folder / "files" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        return folder


PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
HISTOGRAM = {"_type": "histogram", "values": [1, 2, 3], "bins": [0.0, 0.5, 1.0, 2.0]}


def everything(root: Path) -> None:
    """Several projects and runs with every kind of content, below `root`."""
    rich = Recording(
        "rich1", "one", display_name="a run", run_group="g", tags=["b", "a"], notes="two\nlines", job_type="t"
    )
    rich.config({"lr": 0.1, "n": 3, "deep": {"a": {"b": "x"}}, "list": [1, "2"], "none": None, "_wandb": {"t": 1}})
    for step in range(120):
        values: dict[str, Any] = {"loss": 1 / (step + 1), "deep": {"x": step, "y": {"z": float("nan")}}}
        if step % 10 == 0:
            media = {"_type": "image-file", "path": f"media/images/img_{step}.png", "size": 24}
            several = {"_type": "images/separated", "filenames": [f"media/images/{n}_{step}.png" for n in (0, 1)]}
            values |= {"img": media, "imgs": several, "hist": HISTOGRAM, "flag": step % 20 == 0, "word": f"w{step}"}
        rich.row(step, values)
        rich.stats(START_MS + step * 500, {"cpu": step / 2, "gpu.0.memory": 1.0})
    rich.line("out\n")
    rich.line("err\n", stream="STDERR")
    rich.summary({"best": 0.5, "word": "end", "loss": {"min": 0.1}, "_runtime": 3})
    member = root / "elsewhere" / "weights.bin"
    member.parent.mkdir(parents=True)
    member.write_bytes(b"weights")
    rich.artifact("model", {"weights.bin": member})
    rich.exit()
    images = [
        (f"media/images/{name}.png", PNG)
        for step in range(0, 120, 10)
        for name in (f"img_{step}", f"0_{step}", f"1_{step}")
    ]
    rich.write(root, [*images, ("notes/saved.txt", b"saved"), ("output.log", b"out\n")])
    _resumed(root)
    for number in range(3):
        small = Recording(f"small{number}", "two", start_ms=START_MS + number * 1000)
        small.row(0, {"m": float(number)})
        small.exit(code=number)
        small.write(root / "deeper")


def _resumed(root: Path) -> None:
    first = Recording("again", "one", start_ms=START_MS - 5000)
    first.config({"a": 1})
    first.row(0, {"m": 0.5})
    first.write(root, name="run-20231114_221315-again")
    second = Recording("again", "one", start_ms=START_MS + 5000)
    second.config({"a": 2})
    second.row(1, {"m": 1.5})
    second.exit()
    second.write(root, name="run-20231114_221325-again")
