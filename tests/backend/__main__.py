"""Runs ONNX's own node tests through three targets, and writes docs/backend.md: a verdict each, or why not.

``python -m tests.backend [NAME ...]``: all, or only these, whose rows are printed. What was found is kept in
``build/backend`` and gone on from; a change of ``exporter/``, ``targets/`` or of what judges begins anew, and so does
another version of a runtime.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from exporter import isolate
from exporter.graph import sha256
from exporter.isolate import Limits
from tests.backend import batches
from tests.backend.child import BARE, OURS, PASS
from tests.backend.page import Row, page
from tests.bench.figure import ROOT

PAGE, KEPT = ROOT / "docs" / "backend.md", ROOT / "build" / "backend"
TARGETS = ("openvino", "mobile", "onnx-reference")
PACKAGES = ("onnx", "openvino", "onnxruntime")
COLLECTING = ("tests/backend/cases.py", "exporter/manifest/schema.py")
JUDGING = ("tests/backend/cases.py", "tests/backend/child.py", "tests/backend/judge.py")
# Verdicts that the reason of is not the test's own: the bare runtime is not asked what we do not ask ourselves.
INTERFACE = "interface"


def main(names: Sequence[str]) -> int:
    KEPT.mkdir(parents=True, exist_ok=True)
    folder, every = _collected()
    chosen = [name for name in every if not names or name in names]
    rows = {target: _rows(target, folder, chosen) for target in TARGETS}
    if names:
        for target, found in rows.items():
            print("\n".join(f"{target} {row}" for row in found))
        return 0
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    _replace(PAGE, page(rows, versions))
    return 0


def _collected() -> tuple[Path, list[str]]:
    """The folder of all node tests, and their names; written once for a version of ``onnx``."""
    folder = KEPT / f"cases-{_digest(COLLECTING, ())}"
    index = folder / "names.json"
    if not index.is_file():
        folder.mkdir(exist_ok=True)
        request, log = {"folder": str(folder)}, folder / "log"
        made = isolate.call(
            "tests.backend.cases:collect", request, limits=Limits(), log=log, stage="collecting node tests",
            on_event=lambda event: print(f"collecting {event['done']}/{event['of']}", flush=True),
        )  # fmt: skip
        _replace(index, json.dumps(made.require()))
    return folder, json.loads(index.read_text())


def _rows(target: str, folder: Path, names: Sequence[str]) -> list[Row]:
    """What we say of every test, and what the bare runtime says of those that are no PASS."""
    ours = _kept(target, OURS, folder, names)
    asked = [name for name in names if ours[name]["verdict"] != PASS and ours[name]["stage"] != INTERFACE]
    bare = _kept(target, BARE, folder, asked)
    return [Row(name, ours[name], bare.get(name)) for name in names]


def _kept(target: str, way: str, folder: Path, names: Sequence[str]) -> dict[str, batches.Said]:
    """The verdicts, those that are known from a file and those that are missing from children."""
    path = KEPT / f"{target}-{way}-{_digest(JUDGING, ('exporter', 'targets'))}.json"
    known: dict[str, batches.Said] = json.loads(path.read_text()) if path.is_file() else {}

    def keep(found: Mapping[str, batches.Said]) -> None:
        _replace(path, json.dumps({**known, **found}, indent=1))
        print(f"{target} {way} {len(found)}/{len(missing)}", flush=True)

    missing = [name for name in names if name not in known]
    return {**known, **batches.run(target, way, folder, missing, keep)}


def _digest(files: Sequence[str], folders: Sequence[str]) -> str:
    """Of the code that a verdict depends on, and of the versions of what it runs on."""
    digest = hashlib.sha256(repr([version(package) for package in PACKAGES]).encode())
    paths = [ROOT / file for file in files]
    paths += sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    for path in paths:
        digest.update(sha256(path).encode())
    return digest.hexdigest()[:12]


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
