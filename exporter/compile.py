"""Compile: the simplified graphs become an artifact of one target, in a child that may crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter import program, registry
from exporter.errors import NotProven
from exporter.isolate import Channel
from exporter.parity.worker import packed, quiet_polygraphy
from exporter.target import Options


def stage(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Child: checks the graph for everything the target refuses, then compiles it.

    Args:
        request: ``target``, ``program``, ``graphs`` (paths by name) and ``folder``, ``options``.
        channel: gets a progress event.

    Returns:
        The artifact, packed.

    Raises:
        NotProven: ``unsupported`` naming every node at once.
    """
    quiet_polygraphy()
    target = registry.target(request["target"])
    graphs, options = {name: Path(path) for name, path in request["graphs"].items()}, Options(**request["options"])
    steps = program.Program.from_json(request["program"])
    problems = program.problems(target, steps, graphs, options)
    if problems:
        raise NotProven(
            "unsupported",
            f"{target.name} cannot run {len(problems)} nodes: " + "; ".join(map(str, problems)),
            where=f"target {target.name}, graph {', '.join(graphs)}",
            why="they are known before compiling, so that nobody waits for a failure",
            next="change the model as each line says, or choose another target: exporter targets",
        )
    channel.send({"event": "progress", "what": f"compiling for {target.name}"})
    folder = Path(request["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    return packed(program.compile_graphs(target, steps, graphs, options, folder))
