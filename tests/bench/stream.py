"""Per frame against the published streaming graph, in the same runtime, interleaved, one thread.

Each runtime has a process of its own: another one loaded beside it was seen to cost OpenVINO 4 % of a frame.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from exporter import registry
from exporter.bundle import Bundle
from exporter.graph import Graph
from exporter.preflight import artifact_of
from exporter.target import Options
from tests.bench.figure import PEER, ROOT, Figure, at_most, interleaved

PEER_SHAPES = {
    "mix": (1, 257, 1, 2),
    "conv_cache": (2, 1, 16, 16, 33),
    "tra_cache": (2, 3, 1, 1, 16),
    "inter_cache": (2, 1, 33, 16),
}


def figures(folder: Path) -> list[Figure]:
    """Needs the bundles that ``quality`` leaves in the folder."""
    return [_alone(folder, "mobile", 0.35), _alone(folder, "openvino", 0.50)]


def _alone(folder: Path, name: str, bar: float) -> Figure:
    words = [sys.executable, "-m", "tests.bench.stream", str(folder), name, str(bar)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return Figure(**json.loads(done.stdout.splitlines()[-1]))


def _against_peer(folder: Path, name: str, bar: float) -> Figure:
    bundle = Bundle.open(folder / "gtcrn-stream.bundle")
    target, options = registry.target(name), Options(threads=1)
    ours = artifact_of(bundle.file, bundle.manifest.targets[f"{name}/fp32"])
    place = folder / f"peer-{name}"
    place.mkdir()
    peer = target.compile(Graph(PEER), options, place)
    shapes = {t.name: t.sized({}) for t in bundle.manifest.inputs}
    with target.open(ours, options) as mine, target.open(peer, options) as theirs:
        ratio, interval, ms, peer_ms = interleaved(
            target.timer(mine, _feeds(shapes)), target.timer(theirs, _feeds(PEER_SHAPES)), rounds=200
        )
    note = f"{ms * 1e3:.3f} ms against {peer_ms * 1e3:.3f} ms"
    what = f"`gtcrn-stream`, {name}, per frame, against the published streaming graph in the same runtime"
    return at_most(what, bar, ratio, interval=interval, note=note)


def _feeds(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


if __name__ == "__main__":
    print(json.dumps(_against_peer(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])).__dict__))
