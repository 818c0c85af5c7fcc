"""What decides that a graph is made anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter import models, pipeline
from exporter.request import Request
from exporter.stages import silent


def test_every_file_of_ours_counts_those_of_equal_names_too(monkeypatch: pytest.MonkeyPatch) -> None:
    found = models.found(Request("mdta", "openvino"), silent)
    whole = Path(pipeline.__file__).parent
    files = [path for path in sorted(whole.rglob("*.py")) if path.name in ("__init__.py", "worker.py")]
    assert len(files) > len({path.name for path in files})
    keys, plain = set(), pipeline.sha256
    for changed in files:
        monkeypatch.setattr(pipeline, "sha256", lambda path, it=changed: "other" if path == it else plain(path))
        keys.add(pipeline._key(found, ()))
    assert len(keys) == len(files)
