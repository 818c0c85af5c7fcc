"""Runs a bundle on a real input: host steps, the program with its state, host steps; no model code, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exporter import host, registry
from exporter.bundle import Bundle
from exporter.errors import Incomplete, Refused, nearest
from exporter.host import files
from exporter.isolate import Channel, Limits
from exporter.parity.worker import quiet_polygraphy, unpacked
from exporter.preflight import Opening, ready
from exporter.program import open_artifact, program_of
from exporter.samples import prepare, sizes_of
from exporter.stages import Progress, Stages, scratch, silent
from exporter.stream import driven, joined
from exporter.target import Options
from exporter.verification import chosen

if TYPE_CHECKING:
    from polygraphy.backend.base import BaseRunner

    from exporter.manifest import Manifest

Array = NDArray[np.generic]


def run_in_child(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Child: one input file through one artifact into one output file.

    Args:
        request: ``bundle``, ``target``, ``artifact`` (packed), ``options``, ``input`` and ``output`` (paths),
            ``repeats`` (how often each part with a chosen count runs).
        channel: gets a progress event now and then.

    Returns:
        ``{"calls": how many times the model ran, "outputs": {name: shape}}``.
    """
    quiet_polygraphy()
    manifest = Bundle.open(Path(request["bundle"])).manifest
    given = Path(request["input"])
    prepared = prepare(manifest, {**files.read(given), **request["repeats"]}, given)
    target = registry.target(request["target"])
    artifact, options = unpacked(request["artifact"]), Options(**request["options"])
    pieces, calls = list[Mapping[str, Array]](), 0
    with open_artifact(target, program_of(manifest), artifact, options) as runner:
        slices = _slices(manifest, prepared.inputs)
        for index, inputs in enumerate(slices):
            sizes_of(manifest, inputs, given)
            found, ran = execute(manifest, runner, inputs, channel)
            pieces.append(found)
            calls += ran
            if len(slices) > 1:
                channel.send({"event": "progress", "what": "tile", "done": index + 1, "of": len(slices)})
    outputs = {name: np.concatenate([piece[name] for piece in pieces]) if len(pieces) > 1 else value
               for name, value in pieces[0].items()}  # fmt: skip
    values = host.apply(manifest.after, {**prepared.context, **outputs}, manifest.dims)
    written = {name: value for name, value in values.items() if name not in prepared.context}
    files.write(Path(request["output"]), written)
    return {"calls": calls, "outputs": {name: list(value.shape) for name, value in written.items()}}


def _slices(manifest: Manifest, inputs: Mapping[str, Array]) -> list[Mapping[str, Array]]:
    """One set of inputs per entry of the first axis, where there are more than the model takes: the tiles of a picture.

    A model with a stream is left alone: its slices follow one another and share a state.
    """
    wide = {
        tensor.name: inputs[tensor.name].shape[0]
        for tensor in manifest.inputs
        if tensor.name in inputs and tensor.shape[:1] == (1,) and inputs[tensor.name].shape[0] > 1
    }
    if manifest.stream is not None or len(set(wide.values())) != 1:
        return [inputs]
    count = next(iter(wide.values()))
    return [
        {name: value[index : index + 1] if name in wide else value for name, value in inputs.items()}
        for index in range(count)
    ]


def execute(
    manifest: Manifest, runner: BaseRunner, inputs: Mapping[str, Array], channel: Channel | None = None
) -> tuple[dict[str, Array], int]:
    """The model's outputs by name, and how many calls they took.

    A model with a stream is called once per slice of its input, on its own fed-back state.
    """
    if manifest.stream is None:
        return _called(runner, inputs), 1
    stream, sizes = manifest.stream, {tensor.name: tensor.shape for tensor in manifest.inputs}
    step = sizes[stream.input][stream.axis]
    assert isinstance(step, int)
    count, calls = inputs[stream.input].shape[stream.axis] // step, 0

    def call(values: Mapping[str, Array]) -> dict[str, Array]:
        nonlocal calls
        if channel is not None and calls % 100 == 0:
            channel.send({"event": "progress", "what": "running", "done": calls, "of": count})
        calls += 1
        return _called(runner, values)

    return joined(driven(call, inputs, count, stream, manifest.state), stream), calls


def _called(runner: BaseRunner, values: Mapping[str, Array]) -> dict[str, Array]:
    # Not ascontiguousarray: it would make a count, which has no axis, an array of one.
    given = {name: np.asarray(value, order="C") for name, value in values.items()}
    return {name: np.array(value) for name, value in runner.infer(given, check_inputs=False).items()}


def refuse_output(manifest: Manifest, output: Path) -> None:
    """Refuses, before anything runs, an output that could not be written after it."""
    kinds = files.writable(host.names_after(manifest.after, [tensor.name for tensor in manifest.outputs]))
    if output.suffix.lower() in kinds and output.parent.is_dir() and not output.is_dir():
        return
    raise Refused(
        "bad-output",
        f"cannot write {output}" + (": it is a folder" if output.is_dir() else ""),
        where=f"-o {output}",
        why=f"what {manifest.model.name} gives is written as {' or '.join(kinds)}, into a folder that exists",
        next=" or ".join(f"-o OUTPUT{kind}" for kind in kinds),
    )


def _repeats(manifest: Manifest, asked: Sequence[str]) -> dict[str, int]:
    """``NAME=COUNT`` texts as counts of the parts that repeat.

    Raises:
        Refused: ``bad-dim`` for a name that counts nothing, or a count outside its range.
    """
    dims, counts = {dim.name: dim for dim in manifest.dims}, dict[str, int]()
    for text in asked:
        name, _, value = text.partition("=")
        if name not in manifest.repeats:
            known = ", ".join(f"{n} ({dims[n]})" for n in manifest.repeats) or "none"
            raise Refused(
                "bad-dim",
                f"--dim {text} cannot be chosen at run time{nearest(name, list(manifest.repeats))}",
                where=f"model {manifest.model.name}",
                why=f"the input has its sizes already; what may be chosen is how often a part repeats: {known}",
                next="leave --dim out, or name one of those",
            )
        counts[name] = dims[name].narrowed(value).opt
    return counts


def run_file(
    path: Path,
    target_name: str,
    input_path: Path,
    output: Path,
    limits: Limits | None = None,
    progress: Progress = silent,
    dims: Sequence[str] = (),
    opening: Opening | None = None,
) -> dict[str, Any]:
    """Runs one real input through one artifact of a bundle, with its host steps before and after.

    Args:
        path: the bundle's folder.
        target_name: which of its artifacts.
        input_path: a file, or a folder of pictures named after the inputs.
        output: the file to write.
        limits: time and memory of the child.
        progress: told what happens.
        dims: ``NAME=COUNT`` of parts whose repetitions are chosen at run time.
        opening: on which device, and whether an artifact of a stranger is trusted.

    Raises:
        Refused: an unknown target, an input that does not fit the model, an output that cannot be written.
        Incomplete: the runtime is absent, or the artifact is not compiled yet.
        StageFailed: the artifact crashed.
    """
    bundle = Bundle.open(path)
    key = chosen(bundle, [target_name])[0]
    refuse_output(bundle.manifest, output)
    info = bundle.manifest.targets[key]
    available = registry.target(info.target).available()
    if info.status != "compiled" or not available.present:
        raise Incomplete(
            "runtime-absent",
            f"{target_name} cannot run here: {available.reason or 'not compiled yet'}",
            where=f"bundle {path}",
            why="an artifact runs in its own runtime",
            next=available.next or info.finish(path),
        )
    request = {
        "bundle": str(path.resolve()), "target": info.target, "repeats": _repeats(bundle.manifest, dims),
        "input": str(input_path.resolve()), "output": str(output.resolve()),
    }  # fmt: skip
    with scratch() as folder:
        stages = Stages(folder, limits or Limits(), progress)
        made = ready(bundle.file, bundle.manifest, key, stages, opening or Opening())
        value: dict[str, Any] = stages.run("run", "exporter.run:run_in_child", request | made.as_request())
    return value | ({"advice": list(made.advice)} if made.advice else {})
