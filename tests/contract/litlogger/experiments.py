"""What litlogger itself logs, unmodified, in a process of its own: it installs handlers and a background thread."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.servers.lightning.server import Lightning

TEAMSPACE = "team"
_SCRIPT = """
import sys
from pathlib import Path
import litlogger
from litlogger import File, Image, Text

folder = Path(sys.argv[1])
(folder / "notes.txt").write_text("hello")
first = litlogger.init(
    name="first", teamspace="team", metadata={"lr": "0.1", "note": "two\\nlines"}, verbose=False, store_created_at=True
)
for number in range(120):
    first["train/loss"].append(1.0 / (number + 1), step=number * 2)
first["acc"].extend([0.1, 0.2, float("nan"), -0.0])
first["model"] = "resnet"
first["notes"] = File(str(folder / "notes.txt"))
for _ in range(2):
    first["reports"].append(File(str(folder / "notes.txt")))
first["remark"] = Text("static")
for step in (0, 10):
    first["remarks"].append(Text(f"at {step}"), step=step)
first.finalize(print_summary=False)
second = litlogger.init(name="second", teamspace="team", metadata={}, verbose=False, store_created_at=False)
second["only"].append(1.5)
second.finalize(print_summary=False)
"""


def log_experiments(lightning: Lightning, folder: Path) -> None:
    """Two experiments in one teamspace, and one teamspace without any."""
    lightning.store.create_teamspace(TEAMSPACE)
    lightning.store.create_teamspace("unused")
    environment = os.environ | lightning.environment | {"LIGHTNING_USERNAME": "somebody"}
    script = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(folder)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert script.returncode == 0, script.stderr
