"""Models of more weights than protobuf holds: memory of every stage, in units of the weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np

from tests.bench.figure import EXPORTER, ROOT, Figure, at_most

MEBIBYTES = 3072
GRAPH_MEBIBYTES = 2256  # of an ONNX file as MODEL
# What an export of it takes at its worst: two stages that run at once, and the graphs that passes leave.
MEMORY_GIB, DISK_GIB = 12, 24
TARGETS = ("openvino", "mobile")
# Of a stage, by the beginning of its name: what it may take. Verifying has the runtime's own copy in it.
BARS = {"trace": 2.5, "reference": 2.5, "verify": 1.3}


def bar_of(stage: str) -> float:
    """What a stage may take; endless where there is no bar."""
    found = [bar for kind, bar in BARS.items() if stage.startswith(kind)]
    return found[0] if found else inf


def missing(folder: Path) -> str:
    """Why this machine cannot do it now; nothing where it can."""
    facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
    memory, disk = int(facts["MemAvailable"].split()[0]) / 2**20, shutil.disk_usage(folder).free / 2**30
    if memory >= MEMORY_GIB and disk >= DISK_GIB:
        return ""
    return f"{memory:.0f} GiB of memory and {disk:.0f} GiB on disk are free; it takes {MEMORY_GIB} and {DISK_GIB}"


def written(path: Path, mebibytes: int) -> Path:
    """Writes an ONNX file whose weights lie beside it: layers of 16 MiB, each adding a little to what goes through.

    Args:
        path: the ``.onnx`` file.
        mebibytes: how large they are.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng, size, data = np.random.default_rng(0), 2048 * 2048 * 4, path.with_name(f"{path.name}.data")
    layers = mebibytes // 16
    block = (rng.standard_normal((2048, 2048)) / 2048**0.5).astype(np.float32)
    weights, nodes = list[onnx.TensorProto](), list[onnx.NodeProto]()
    with data.open("wb") as file:
        for layer in range(layers):
            file.write(np.roll(block, layer).tobytes())
            weights.append(TensorProto(name=f"w{layer}", data_type=TensorProto.FLOAT, dims=(2048, 2048)))
            weights[-1].data_location = TensorProto.EXTERNAL
            for key, value in (("location", data.name), ("offset", layer * size), ("length", size)):
                weights[-1].external_data.add(key=key, value=str(value))
            nodes += [
                helper.make_node("MatMul", [f"h{layer}", f"w{layer}"], [f"p{layer}"]),
                helper.make_node("Tanh", [f"p{layer}"], [f"t{layer}"]),
                helper.make_node("Mul", [f"t{layer}", "part"], [f"s{layer}"]),
                helper.make_node("Add", [f"h{layer}", f"s{layer}"], [f"h{layer + 1}"]),
            ]
    weights.append(numpy_helper.from_array(np.array(1 / layers, np.float32), "part"))
    ends = [helper.make_tensor_value_info(f"h{at}", TensorProto.FLOAT, ["T", 2048]) for at in (0, layers)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString())
    return path


def exported(folder: Path, mebibytes: int, model: Sequence[str]) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Exports a model for one target after the other into one bundle, and removes it at the end.

    Args:
        folder: where to.
        mebibytes: how large its weights are.
        model: ``MODEL`` and what goes with it: :func:`module` or :func:`graph`.

    Yields:
        The target, and what each stage took at its most, in units of the weights.
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "cli_fakes" / "site")}
    bundle = folder / "large.bundle"
    try:
        for target in TARGETS:
            words = [EXPORTER, target, *model, "--no-profile", "-o", str(bundle)]
            done = subprocess.run([*words, "--json"], env=env, capture_output=True, text=True, check=False)
            said = json.loads(done.stdout)
            hops = [(hop["hop"], hop["verdict"], hop["reason"]) for hop in said.get("verify", {}).get("hops", [])]
            assert done.returncode == 0, (hops or said, done.stderr[-2000:])
            stages = [s for s in said["stages"] if not s["cached"]]
            names = {s["stage"]: f"compile {target}" if s["stage"] == "compile" else s["stage"] for s in stages}
            yield target, {names[s["stage"]]: s["peak_rss_mb"] / mebibytes for s in stages}
    finally:
        shutil.rmtree(bundle, ignore_errors=True)


def module(mebibytes: int) -> tuple[str, ...]:
    """``MODEL`` of a definition whose weights are as large as that."""
    return ("large", "--set", f"mebibytes={mebibytes}")


def graph(path: Path, mebibytes: int) -> tuple[str, ...]:
    """``MODEL`` of an ONNX file whose weights are as large as that; it is written."""
    return (str(written(path, mebibytes)), "--dim", "T=2:8:9")


def figures(folder: Path) -> list[Figure]:
    """Every stage of the exports; those without a bar in the note of the first."""
    if reason := missing(folder):
        return [Figure(f"{MEBIBYTES} MiB of weights", "exported", 0.0, False, note=f"not measured: {reason}")]
    of_module = _figures(folder, MEBIBYTES, module(MEBIBYTES), "weights")
    try:
        return of_module + _figures(
            folder, GRAPH_MEBIBYTES, graph(folder / "large.onnx", GRAPH_MEBIBYTES), "an `.onnx`"
        )
    finally:
        for file in folder.glob("large.onnx*"):
            file.unlink()


def _figures(folder: Path, mebibytes: int, model: Sequence[str], kind: str) -> list[Figure]:
    found = {stage: times for _, stages in exported(folder, mebibytes, model) for stage, times in stages.items()}
    barred = [stage for stage in found if bar_of(stage) < inf]
    rest = ", ".join(f"{stage} {times:.2f}x" for stage, times in found.items() if stage not in barred)
    what = f"peak memory of `{{}}`, {mebibytes} MiB of {kind}"
    made = [at_most(what.format(stage), bar_of(stage), found[stage]) for stage in barred]
    return [replace(made[0], note=f"without a bar: {rest}"), *made[1:]]
