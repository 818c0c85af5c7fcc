"""Runs a bundle on a real input: host steps, the graphs with their state, host steps; no model code, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exporter import host, registry
from exporter.bundle import Bundle
from exporter.errors import Incomplete, Refused
from exporter.hops import artifact_of, options_of
from exporter.host import files
from exporter.isolate import Channel, Limits
from exporter.parity.worker import packed, quiet_polygraphy, unpacked
from exporter.samples import prepare
from exporter.stages import Progress, Stages, scratch, silent
from exporter.target import Options
from exporter.verification import chosen

if TYPE_CHECKING:
    from polygraphy.backend.base import BaseRunner

    from exporter.manifest import Manifest

Array = NDArray[np.generic]


def run_in_child(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Child: one input file through one artifact into one output file.

    Args:
        request: ``bundle``, ``target``, ``artifact`` (packed), ``options``, ``input`` and ``output`` (paths).
        channel: gets a progress event now and then.

    Returns:
        ``{"calls": how many times the graph ran, "outputs": {name: shape}}``.
    """
    quiet_polygraphy()
    manifest = Bundle.open(Path(request["bundle"])).manifest
    inputs = prepare(manifest, Path(request["input"]))
    target = registry.target(request["target"])
    artifact, options = unpacked(request["artifact"]), Options(**request["options"])
    with ExitStack() as stack:
        runner = stack.enter_context(target.open(artifact, options))
        values, calls = execute(manifest, {"model": runner}, inputs, channel)
    values = host.apply(manifest.after, values)
    files.write(Path(request["output"]), values)
    return {"calls": calls, "outputs": {name: list(value.shape) for name, value in values.items()}}


def execute(
    manifest: Manifest, runners: Mapping[str, BaseRunner], inputs: Mapping[str, Array], channel: Channel | None = None
) -> tuple[dict[str, Array], int]:
    """The program's outputs by name, and how many graph calls they took.

    A model with a stream is called once per slice of its input, on its own fed-back state.
    """
    if manifest.stream is None:
        return _once(manifest, runners, dict(inputs))
    stream, current, collected, calls = manifest.stream, dict(inputs), [], 0
    sizes = {tensor.name: tensor.shape for tensor in manifest.inputs}
    step = sizes[stream.input][stream.axis]
    assert isinstance(step, int)
    pieces = np.split(inputs[stream.input], inputs[stream.input].shape[stream.axis] // step, stream.axis)
    outputs: dict[str, Array] = {}
    for index, piece in enumerate(pieces):
        outputs, ran = _once(manifest, runners, current | {stream.input: piece})
        calls += ran
        collected.append(outputs[stream.output])
        current |= {state.input: outputs[state.output] for state in manifest.state}
        if channel is not None and index % 100 == 0:
            channel.send({"event": "progress", "what": "running", "done": index, "of": len(pieces)})
    return outputs | {stream.output: np.concatenate(collected, stream.axis)}, calls


def _once(
    manifest: Manifest, runners: Mapping[str, BaseRunner], values: dict[str, Array]
) -> tuple[dict[str, Array], int]:
    """All steps of the program once; values live in one namespace by tensor name."""
    outputs: dict[str, Array] = {}
    calls = 0
    for step in manifest.program:
        runner = runners[step.graph]
        wanted = list(runner.get_input_metadata())
        for _ in range(step.repeat):
            given = {name: np.ascontiguousarray(values[name]) for name in wanted}
            outputs = {name: np.array(value) for name, value in runner.infer(given, check_inputs=False).items()}
            values |= outputs | {state.input: outputs[state.output] for state in step.state}
            calls += 1
    return outputs, calls


def _refuse_output(manifest: Manifest, output: Path) -> None:
    """Refuses, before anything runs, an output that could not be written after it."""
    kinds = [".wav", ".npz"] if any(step.step == "istft" for step in manifest.after) else [".npz"]
    if output.suffix in kinds and output.parent.is_dir() and not output.is_dir():
        return
    raise Refused(
        "bad-output",
        f"cannot write {output}" + (": it is a folder" if output.is_dir() else ""),
        where=f"-o {output}",
        why=f"what {manifest.model.name} gives is written as {' or '.join(kinds)}, into a folder that exists",
        next=" or ".join(f"-o OUTPUT{kind}" for kind in kinds),
    )


def run_file(
    path: Path,
    target_name: str,
    input_path: Path,
    output: Path,
    limits: Limits | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Runs one real input through one artifact of a bundle, with its host steps before and after."""
    bundle = Bundle.open(path)
    key = chosen(bundle, [target_name])[0]
    _refuse_output(bundle.manifest, output)
    info = bundle.manifest.targets[key]
    available = registry.target(info.target).available()
    if info.status != "compiled" or not available.present:
        raise Incomplete(
            "runtime-absent",
            f"{target_name} cannot run here: {available.reason or 'not compiled yet'}",
            where=f"bundle {path}",
            why="an artifact runs in its own runtime",
            next=available.next or info.next,
        )
    request = {
        "bundle": str(path.resolve()), "target": info.target, "artifact": packed(artifact_of(bundle.file, info)),
        "options": options_of(bundle.manifest, info.precision, info.threads).__dict__,
        "input": str(input_path.resolve()), "output": str(output.resolve()),
    }  # fmt: skip
    with scratch() as folder:
        value: dict[str, Any] = Stages(folder, limits or Limits(), progress).run(
            "run", "exporter.program:run_in_child", request
        )
    return value
