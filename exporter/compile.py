"""Compile: the simplified graphs become an artifact of one target, in a child that may crash.

Where the runtime is absent and the target can do without, everything that comes before it is done here all the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter import program, registry, trust
from exporter.errors import NotProven, StageFailed
from exporter.graph import Graph
from exporter.isolate import Channel
from exporter.parity.worker import packed, quiet_polygraphy, unpacked
from exporter.stages import Stages
from exporter.target import Artifact, Options, Target


def compiled(
    stages: Stages,
    stage: str,
    target: Target,
    interface: program.Interface,
    graphs: Mapping[str, Path],
    options: Options,
    folder: Path,
) -> Artifact:
    """Compiles in a child, and remembers that it was done here.

    Raises:
        NotProven: ``unsupported`` naming every node at once.
        StageFailed: it crashed, timed out, or gave files that are not its own.
    """
    made = unpacked(stages.run(stage, "exporter.compile:stage", _request(target, interface, graphs, options, folder)))
    _refuse_foreign_files(target, made.files, folder)
    shutil.rmtree(_copies_of(folder))  # of a large graph it is as much again
    guarded = {role: path for role, path in made.files.items() if role.rpartition(".")[2] in target.guarded}
    if guarded:
        said = trust.remember(guarded, target=target.name, fingerprint=dict(made.fingerprint))
        made = replace(made, advice=(*made.advice, *said))
    return made


def prepared(
    stages: Stages,
    target: Target,
    interface: program.Interface,
    graphs: Mapping[str, Path],
    options: Options,
    folder: Path,
) -> dict[str, Path]:
    """The files that compiling will read, made in a child where the runtime is absent.

    Raises:
        NotProven: ``unsupported`` naming every node at once.
    """
    request = _request(target, interface, graphs, options, folder)
    made = {role: Path(path) for role, path in stages.run("prepare", "exporter.compile:preparing", request).items()}
    _refuse_foreign_files(target, made, folder)
    shutil.rmtree(_copies_of(folder))
    return made


def _request(
    target: Target, interface: program.Interface, graphs: Mapping[str, Path], options: Options, folder: Path
) -> dict[str, Any]:
    """What a child is asked, on copies: a target that writes to what it is given, or gives it away, changes no more."""
    copies = {}
    for name, path in graphs.items():
        place = _copies_of(folder) / name
        place.mkdir(parents=True, exist_ok=True)
        copies[name] = Graph(path).copied(place / f"{name}.onnx")
    return {
        "target": target.name, "graphs": {name: str(copy.path) for name, copy in copies.items()}, "folder": str(folder),
        "program": program.program_of(interface).as_json(), "options": options.__dict__,
    }  # fmt: skip


def _copies_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-graphs")


def _refuse_foreign_files(target: Target, files: Mapping[str, Path], folder: Path) -> None:
    """An artifact is moved into the bundle: what a target did not write where it was told to is not its to give."""
    for role, path in files.items():
        there = path.is_file() and not path.is_symlink()
        if not there or folder.resolve() not in path.resolve().parents:
            raise StageFailed(
                "stage-failed",
                f"compile gave {path.name} as {role}, " + ("which it did not write" if there else "and there is none"),
                where=f"target {target.name}, file {path}",
                why="an artifact is made of regular files under the folder that compile is given, and of no others",
                next=f"mend compile() of {target.name}: write {role} under its folder",
            )


def stage(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Child: checks the graph for everything the target refuses, then compiles it.

    Args:
        request: ``target``, ``program``, ``graphs`` (paths by name) and ``folder``, ``options``.
        channel: gets progress events.

    Returns:
        The artifact, packed.

    Raises:
        NotProven: ``unsupported`` naming every node at once.
    """
    quiet_polygraphy()
    target, graphs, options, steps, folder = _read(request)
    _refuse_problems(target, steps, graphs, options)

    def progress(what: str, done: int = 0, of: int = 0) -> None:
        channel.send({"event": "progress", "what": what} | ({"done": done, "of": of} if of else {}))

    progress(f"compiling for {target.name}")
    return packed(program.compile_graphs(target, steps, graphs, options, folder, progress))


def preparing(request: dict[str, Any], channel: Channel) -> dict[str, str]:
    """Child: everything of a compile that needs no runtime.

    Args:
        request: as of :func:`stage`.
        channel: gets a progress event.

    Returns:
        The files that compiling will read, by role.

    Raises:
        NotProven: ``unsupported`` naming every node at once.
    """
    target, graphs, options, steps, folder = _read(request)
    channel.send({"event": "progress", "what": f"preparing for {target.name}"})
    _refuse_problems(target, steps, graphs, options)
    made = program.prepare_graphs(target, steps, graphs, options, folder)
    return {role: str(path) for role, path in made.items()}


def _read(request: dict[str, Any]) -> tuple[Target, dict[str, Path], Options, program.Program, Path]:
    graphs = {name: Path(path) for name, path in request["graphs"].items()}
    folder = Path(request["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    steps = program.Program.from_json(request["program"])
    return registry.target(request["target"]), graphs, Options(**request["options"]), steps, folder


def _refuse_problems(target: Target, steps: program.Program, graphs: dict[str, Path], options: Options) -> None:
    problems = program.problems(target, steps, graphs, options)
    if problems:
        raise NotProven(
            "unsupported",
            f"{target.name} cannot run {len(problems)} nodes: " + "; ".join(map(str, problems)),
            where=f"target {target.name}, graph {', '.join(graphs)}",
            why="they are known before compiling, so that nobody waits for a failure",
            next="change the model as each line says, or choose another target: exporter targets",
        )
