"""Goes on with an experiment as people do: with the vendor's client, in a process of its own.

    python going_on.py KEY FOLDER [offline]

With a server, or into an offline archive in FOLDER.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

_QUIET: Final = {
    "COMET_DISABLE_AUTO_LOGGING": "1",
    "COMET_ERROR_TRACKING_ENABLE": "false",
    "COMET_INTERNAL_REPORTING": "false",
}


def go_on_with(key: str, folder: Path, *, url: str = "") -> None:
    """`url`: of a server; "" = offline."""
    environment = os.environ | _QUIET | {"HOME": str(folder)} | ({"COMET_URL_OVERRIDE": url} if url else {})
    command = [sys.executable, __file__, key, str(folder), *([] if url else ["offline"])]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def main(key: str, folder: Path, *, is_offline: bool) -> None:
    import comet_ml

    experiment: comet_ml.CometExperiment
    if is_offline:
        experiment = comet_ml.ExistingOfflineExperiment(experiment_key=key, offline_directory=str(folder))
    else:
        experiment = comet_ml.ExistingExperiment(experiment_key=key)
    report = folder / "report.txt"
    report.write_text("theirs")
    experiment.log_asset(str(report), file_name="report.txt", metadata={"by": "hand"})
    experiment.log_metric("free", 2.5)
    experiment.log_parameter("theirs", 3)
    experiment.log_parameter("params/lr", 0.5)
    experiment.log_other("notes", "look at this")
    experiment.set_name("renamed")
    experiment.add_tag("good")
    experiment.log_html("<b>theirs</b>")
    experiment.log_metric("metrics/loss", 0.05, step=120)
    experiment.log_metric("metrics/loss", 0.75, step=25)
    experiment.log_metric("odd", 1.5, step=5.5)  # type: ignore[arg-type]
    experiment.log_metric("eval/acc", 0.9, step=200, epoch=2)
    print("said so")
    experiment.end()
    report.unlink()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), is_offline=len(sys.argv) > 3)
