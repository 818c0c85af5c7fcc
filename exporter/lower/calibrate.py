"""The child that runs the float32 graphs over calibration inputs and keeps what each graph is given.

Of a model of one graph and no state that is the inputs themselves; of others, values that only a run knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from exporter import program, registry
from exporter.bundle import read_tensors, under, write_tensors
from exporter.errors import Incomplete
from exporter.isolate import Channel
from exporter.parity.worker import quiet_polygraphy
from exporter.spec import State, Stream
from exporter.stream import driven
from exporter.target import Options

# So many calls of a graph are kept, spread over all there are.
MOST = 64


def stage(request: dict[str, Any], channel: Channel) -> dict[str, list[str]]:
    """Child: writes the inputs of every graph, one file per call.

    Args:
        request: ``graphs`` (simplified, paths by name), ``files`` (prepared inputs), ``folder``; ``program``,
            ``options``, ``state`` and ``stream`` as :func:`exporter.parity.worker.measure` takes them.
        channel: gets a progress event per file.

    Returns:
        The files by graph.
    """
    quiet_polygraphy()
    steps, options = program.Program.from_json(request["program"]), Options(**request["options"])
    graphs = {name: Path(path) for name, path in request["graphs"].items()}
    calls: dict[str, list[dict[str, Any]]] = {name: [] for name in graphs}
    stream = Stream(**request["stream"]) if request["stream"] else None
    states = [State(**state) for state in request["state"]]
    runners = registry.graph_runners()
    if not runners:
        raise Incomplete(
            "runtime-absent",
            "no runtime here can run a plain graph, which calibrating has to",
            why="scales are taken from what the float32 graph computes",
            next="exporter targets, or compile where the model was exported",
        )
    with program.open_graphs(runners[0], steps, graphs, options) as runner:
        for index, file in enumerate(request["files"]):
            channel.send({"event": "progress", "what": "calibrating", "done": index, "of": len(request["files"])})
            inputs = under(read_tensors(Path(file)), "input/")

            def call(feeds: Any) -> dict[str, Any]:
                given, outputs = program.observed(steps, runner, feeds)
                for graph, fed in given:
                    calls[graph].append({name: np.array(value) for name, value in fed.items()})
                return outputs

            if stream is None:
                call(inputs)
            else:
                count = inputs[stream.input].shape[stream.axis] // request["piece"]
                for _ in driven(call, inputs, count, stream, states):
                    pass
    return {graph: _written(found, Path(request["folder"]) / graph) for graph, found in calls.items()}


def _written(calls: list[dict[str, Any]], folder: Path) -> list[str]:
    folder.mkdir(parents=True)
    chosen = [calls[index] for index in sorted({len(calls) * i // MOST for i in range(MOST)})] if calls else []
    paths = []
    for index, feeds in enumerate(chosen):
        path = folder / f"{index:03}.safetensors"
        write_tensors(path, feeds)
        paths.append(str(path))
    return paths
