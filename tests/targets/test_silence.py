"""Runtimes report to their makers unless they are told not to; ours are."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cli_fakes.tool import exported, run


def test_nothing_is_kept_for_the_makers_of_a_runtime(tmp_path: Path) -> None:
    bundle = shutil.copytree(exported("tiny", "openvino", "mobile"), tmp_path / "tiny.bundle")
    home = tmp_path / "home"
    home.mkdir()
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    assert run("verify", bundle, cwd=tmp_path, env=places).code == 0
    # Both write an identifier of the machine before they send: openvino to ~/intel, onnxruntime to its cache.
    assert {path.name for path in [*home.iterdir(), *home.glob("cache/*")]} <= {"cache", "exporter"}
