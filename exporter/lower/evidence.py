"""Evidence: the search of :mod:`exporter.lower.search` on the model itself, its runs remembered."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from exporter import program, registry
from exporter.bundle import read_tensors
from exporter.graph import Graph, sha256
from exporter.isolate import Channel
from exporter.lower.search import search
from exporter.lower.switchboard import SWITCHES, Rounding, switchable, switchboard
from exporter.parity import judge as judging
from exporter.parity import worker
from exporter.parity.judge import excess, judge
from exporter.parity.ladder import Rung
from exporter.parity.usual import usual_sizes
from exporter.target import Options

MOST_RUNS = 160
LEAST_RUNS = 24


@dataclass(frozen=True)
class Kept:
    """What stays in float32, by graph and node with the reason, and what finding it took."""

    kept: dict[str, dict[str, str]]
    facts: dict[str, Any]


def searched(
    models: Mapping[str, ir.Model],
    roundings: Mapping[str, Rounding],
    rung: Rung,
    request: Mapping[str, Any],
    channel: Channel,
) -> Kept:
    """Runs the search over the request's cases; see :func:`exporter.lower.worker.searching`.

    Args:
        models: the float32 graphs.
        roundings: by graph, what lowering a node does to its values.
        rung: what is allowed.
        request: what is to be lowered, and on what it is judged.
        channel: gets what it will cost, then a progress event per run.
    """
    places = [
        (graph, node)
        for graph, model in models.items()
        for node in switchable(model, roundings[graph], request["kept"][graph])
    ]
    began = time.monotonic()
    with _opened(models, roundings, places, request) as runner:
        memory = Memory(Path(request["memory"]), request)
        run = _running(runner, places, rung, request, memory)
        once = _seconds(run, len(places), memory)
        most = int(min(MOST_RUNS, max(LEAST_RUNS, request["seconds"] / max(once, 1e-3))))
        cost = f"at most {most} runs of {once:.2g} s over {', '.join(case['name'] for case in request['cases'])}"
        found = search(
            len(places), _told(run, most, cost, channel), most,
            lambda: time.monotonic() - began > request["seconds"],
        )  # fmt: skip
    kept = {graph: dict(nodes) for graph, nodes in request["kept"].items()}
    for index, alone in found.kept.items():
        graph, node = places[index]
        kept[graph][node] = f"in {request['precision']} it alone brings {alone:.2g} times the error allowed"
    facts = {"runs": found.runs, "excess": found.excess, "seconds": time.monotonic() - began}
    return Kept(kept, facts)


def _opened(
    models: Mapping[str, ir.Model],
    roundings: Mapping[str, Rounding],
    places: Sequence[tuple[str, str]],
    request: Mapping[str, Any],
) -> Any:
    """A runner of the switchboards, which takes the switches of every graph beside the model's inputs."""
    steps, options = program.Program.from_json(request["program"]), Options(**request["options"])
    paths, shapes = {}, {}
    for graph, model in models.items():
        nodes = [node for of, node in places if of == graph]
        paths[graph] = Path(request["folder"]) / f"{graph}.switches.onnx"
        Graph.written(paths[graph], switchboard(model, roundings[graph], nodes, _switches(graph)))
        shapes[graph] = {**steps.shapes[graph], _switches(graph): (len(nodes),)}
    return program.open_graphs(registry.graph_runners()[0], replace(steps, shapes=shapes), paths, options)


def _switches(graph: str) -> str:
    return f"{SWITCHES}/{graph}"


class _Switched:
    """A runner with the switches set."""

    def __init__(self, runner: Any, switches: Mapping[str, np.ndarray]) -> None:
        self._runner, self._switches = runner, switches

    def infer(self, feeds: Mapping[str, np.ndarray], check_inputs: bool = False) -> Any:
        return self._runner.infer({**feeds, **self._switches}, check_inputs=check_inputs)


Run = Callable[[Collection[int]], float]


def _running(
    runner: Any, places: Sequence[tuple[str, str]], rung: Rung, request: Mapping[str, Any], memory: Memory
) -> Run:
    """Says how far off the model is with some nodes lowered, in units of the error allowed."""
    yardsticks = {k: v for path in request["yardsticks"] for k, v in read_tensors(Path(path)).items()}
    expected = [(case["name"], output) for case in request["cases"] for output in request["outputs"]]
    usual = usual_sizes(request["beside"], request["outputs"])

    def run(lowered: Collection[int]) -> float:
        known = memory.get(lowered)
        if known is not None:
            return known
        on = {_switches(graph): np.zeros(sum(of == graph for of, _ in places), bool) for graph in request["graphs"]}
        first = {graph: next((i for i, (of, _) in enumerate(places) if of == graph), 0) for graph in request["graphs"]}
        for index in lowered:
            graph = places[index][0]
            on[_switches(graph)][index - first[graph]] = True
        switched = _Switched(runner, on)
        measured = [m for case in request["cases"]
                    for m in worker.measure_case(switched, request, case, None, yardsticks)]  # fmt: skip
        results = judge(
            measured, expected, hop="lowered", target=None, form=None, rung=rung, precision=request["precision"],
            guard=True, usual=usual,
        )  # fmt: skip
        value = max(excess(result, rung, request["precision"]) for result in results)
        memory.put(lowered, value)
        return value

    return run


def _seconds(run: Run, nodes: int, memory: Memory) -> float:
    """What one run takes, by the first; of one that is remembered, as it took then."""
    began = time.monotonic()
    run(range(nodes))
    return memory.seconds(time.monotonic() - began)


def _told(run: Run, most: int, cost: str, channel: Channel) -> Run:
    done = 0

    def told(lowered: Collection[int]) -> float:
        nonlocal done
        channel.send({"event": "progress", "what": f"search: {cost}", "done": min(done, most), "of": most})
        done += 1
        value = run(lowered)
        return value if isfinite(value) else float("inf")

    return told


class Memory:
    """What runs found, in a file outside the bundle: a search that was cut off goes on where it was.

    A line per run; one that was cut off half-way is no JSON, and is left out.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any]) -> None:
        key = hashlib.sha256()
        cases = (case["file"] for of in ("cases", "beside") for case in request[of])
        for path in request["graphs"].values():
            key.update(Graph(Path(path)).digest().encode())
        for path in (*request["yardsticks"], *cases):
            key.update(sha256(Path(path)).encode())
        for said in ("precision", "kept", "outputs", "decibels", "scales"):
            key.update(json.dumps(request.get(said), sort_keys=True).encode())
        for source in sorted((*Path(__file__).parent.glob("*.py"), *Path(judging.__file__).parent.glob("*.py"))):
            key.update(sha256(source).encode())
        self._file = folder / f"{key.hexdigest()}.jsonl"
        self._found: dict[str, float] = {}
        self._once: float | None = None
        with suppress(OSError):
            for line in self._file.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError, KeyError, TypeError):
                    note = json.loads(line)
                    self._found[note["lowered"]] = float(note["excess"])
                    self._once = float(note["seconds"])
        self._since = time.monotonic()

    def get(self, lowered: Collection[int]) -> float | None:
        self._since = time.monotonic()
        return self._found.get(_digest(lowered))

    def put(self, lowered: Collection[int], excess: float) -> None:
        seconds = time.monotonic() - self._since
        self._found[_digest(lowered)] = excess
        note = {"lowered": _digest(lowered), "excess": excess, "seconds": seconds}
        with suppress(OSError):  # what cannot be remembered is found again
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(note) + "\n")

    def seconds(self, measured: float) -> float:
        return self._once if self._once is not None else measured


def _digest(lowered: Collection[int]) -> str:
    return hashlib.sha256(",".join(map(str, sorted(lowered))).encode()).hexdigest()[:24]
