"""How the archives beside this file were made: by the vendor's own client (comet_ml 3.58.8), once.

python make.py FOLDER
"""

import os
import sys
from pathlib import Path
from typing import Any

os.environ |= {"COMET_ERROR_TRACKING_ENABLE": "false", "COMET_INTERNAL_REPORTING": "false"}

from comet_ml import ExistingOfflineExperiment, OfflineExperiment

QUIET: dict[str, Any] = {
    "workspace": "ws",
    "project_name": "vision",
    "log_code": False,
    "log_env_details": False,
    "log_git_metadata": False,
    "parse_args": False,
    "auto_output_logging": False,
    "display_summary_level": 0,
}


def main(folder: Path) -> None:
    asset = folder / "notes.txt"
    asset.write_text("hello")
    image = folder / "pixel.png"
    image.write_bytes(bytes.fromhex("89504e470d0a1a0a") + b"not quite a picture")
    key = "a1" * 20
    first = OfflineExperiment(offline_directory=str(folder), experiment_key=key, **QUIET)
    first.set_name("first run")
    first.add_tags(["tag one", "two"])
    first.log_parameters({"lr": 0.1, "n": 3, "big": 2**53 + 1, "flag": True, "list": [1, "a"], "nan": float("nan")})
    first.log_parameters({"nested": {"a": 1, "b": {"c": None}}, "long": "x" * 1500})
    first.log_other("note", "a fact")
    first.log_other("count", 3)
    for step in range(5):
        first.log_metric("loss", 1 / (step + 1), step=step)
        first.log_metric("odd", [float("nan"), float("inf"), -0.0, 1e300, 5e-324][step], step=step)
    with first.train():
        first.log_metric("acc", 0.5, step=1, epoch=2)
    first.log_histogram_3d([1, 2, 3, 4.0], name="weights", step=2)
    first.log_text("some text", step=3)
    first.log_asset(str(asset), file_name="docs/notes.txt", step=4, metadata={"a": 1})
    first.log_asset(str(asset), file_name="plain.txt")
    first.log_image(str(image), name="picture", step=5)
    first.log_remote_asset("s3://bucket/key", remote_file_name="elsewhere", metadata={"z": 1})
    first.log_model("net", str(asset))
    first.log_html("<b>bold</b>")
    first.log_system_info("room", "12")
    first.set_model_graph("a -> b")
    first.log_dependency("numpy", "2")
    first.end()
    again = ExistingOfflineExperiment(offline_directory=str(folder), experiment_key=key, **QUIET)
    again.log_metric("loss", 0.125, step=5)
    again.log_other("note", "another fact")
    again.end()
    asset.unlink()
    image.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
