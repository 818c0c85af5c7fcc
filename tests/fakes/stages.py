"""Stages for the tests of what is kept of them: children that note each run in a file of the caller's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def doubled(request: dict[str, Any], channel: Any) -> dict[str, Any]:
    """Writes what it reads, twice, into the file and the folder that it is asked for; says where."""
    with Path(os.environ["NOTES"]).open("a", encoding="utf-8") as notes:
        notes.write(f"{request['say']}\n")
    content = Path(request["read"]).read_text(encoding="utf-8") if request.get("read") else request["say"]
    written = [Path(request["write"]), Path(request["folder"]) / "inside" / "more.txt"]
    for path in written:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(2 * content, encoding="utf-8")
        if path.suffix == ".onnx":  # a graph in two files
            path.with_name(f"{path.name}.data").write_text(3 * content, encoding="utf-8")
    if request.get("exchange"):  # somebody writes to what the stage has read
        Path(request["exchange"]).write_text("another", encoding="utf-8")
    if request.get("fail"):
        raise ValueError("after all was written")
    return {"files": [{"file": str(path)} for path in written], "said": request["say"], "none": None, "figure": 0.1}
