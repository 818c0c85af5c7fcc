"""What is freed is given back, and where that is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exporter import program
from exporter.parity import worker

# As a runtime does that packs weights after it folded them: what comes is a little larger than what goes.
PACKING = """
import sys
import numpy as np
from exporter.memory import give_back_what_is_freed
if sys.argv[1] == "back":
    give_back_what_is_freed()
first = np.ones(1 << 22, np.float32)
del first  # a freed mapping: from here on the C library keeps blocks of this size to itself
folded = [np.ones(1 << 21, np.float32) for _ in range(40)]
packed = []
for index in range(0, 40, 2):
    packed.append(np.ones((1 << 21) + (1 << 14), np.float32))
    folded[index] = None
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library's own ways elsewhere")
def test_what_is_freed_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)

    def resident(how: str) -> int:
        words = [sys.executable, "-c", PACKING, how]
        return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    assert resident("back") < 400 * 1024 < resident("kept")  # KiB; 40 blocks of 8 MiB are left, and 20 were freed


@pytest.mark.parametrize("beside", [True, False])
def test_verifying_a_graph_with_weights_beside_it_gives_back(
    beside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()
    monkeypatch.setattr(worker, "give_back_what_is_freed", lambda: asked.append("back"))
    monkeypatch.setattr(program, "open_graphs", lambda *_: asked.append("opened"))
    if beside:
        (tmp_path / "net.onnx.data").touch()
    empty: dict[str, Any] = {"steps": [], "shapes": {}, "gives": {}, "outputs": []}
    graphs = {"model": str(tmp_path / "net.onnx")}
    options = {"precision": "fp32", "threads": 1, "shapes": {}, "dims": {}}
    worker.opened(None, {"options": options, "program": empty, "graphs": graphs})  # type: ignore[arg-type]
    assert asked == (["back", "opened"] if beside else ["opened"])
