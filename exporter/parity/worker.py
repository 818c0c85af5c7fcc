"""The child that runs an artifact over the cases and measures it. It judges nothing: its parent does."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exporter import program, registry
from exporter.bundle import read_tensors, under, write_tensors
from exporter.graph import Graph
from exporter.isolate import Channel
from exporter.memory import give_back_what_is_freed
from exporter.parity.measure import Measurement, compare, extra_outputs, l2, step_errors
from exporter.parity.task import TaskMetrics
from exporter.spec import Dim, HostStep, State, Stream
from exporter.stream import driven, joined
from exporter.target import Artifact, Options, Target

if TYPE_CHECKING:
    from polygraphy.backend.base import BaseRunner

Array = NDArray[Any]
# What the first case of every output's shape gave: the artifact's answer and the reference.
Firsts = dict[tuple[str, tuple[int, ...]], tuple[Array, Array]]


def measure(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Child: opens one artifact, or plain graphs, runs every case, and returns what it measured and what ran.

    Args:
        request: ``target``; ``artifact`` (see :func:`packed`) or ``graphs`` (paths by name); ``program``; ``form``;
            ``options``;
            ``cases`` (``[{"name", "scale", "steps", "file"}]``); ``outputs`` (``{name: dtype}``); ``state``
            (``[{"input", "output"}]``); ``stream`` or None; optional ``metrics`` and ``after``, the task metrics of
            real inputs and the host steps before them; optional ``yardsticks``, files of eager's own error in a lower
            precision, where that and not the model's own is to be compared with; optional ``previews``
            (``{"file", "prefix"}``), where to leave what a person looks at of real inputs.
        channel: gets one progress event per case.

    Returns:
        ``{"measurements": [...], "metrics": [...], "ran": {...}}``, the last with the fields of :class:`Ran`.
    """
    quiet_polygraphy()
    target = registry.target(request["target"])
    measurements, firsts = list[Measurement](), Firsts()
    dims = [Dim(name, *bounds) for name, bounds in request["options"]["dims"].items()]
    task = TaskMetrics(request.get("metrics", []), [HostStep(**step) for step in request.get("after", [])], dims)
    yardsticks = {k: v for path in request.get("yardsticks", []) for k, v in read_tensors(Path(path)).items()}
    with ExitStack() as stack:
        runner = stack.enter_context(opened(target, request))
        for index, case in enumerate(request["cases"]):
            measurements += measure_case(runner, request, case, task, yardsticks, firsts)
            channel.send(
                {"event": "progress", "what": f"case {case['name']}", "done": index + 1, "of": len(request["cases"])}
            )
        ran = program.ran(target, runner)
    shown = task.previews() if request.get("previews") else {}
    if shown:
        prefix = request["previews"]["prefix"]
        write_tensors(Path(request["previews"]["file"]), {prefix + name: value for name, value in shown.items()})
    return {
        "measurements": [m.as_json() for m in measurements],
        "metrics": task.as_json(),
        "ran": {
            "precision": ran.precision, "layers": dict(ran.layers), "providers": dict(ran.providers),
            "differing": dict(ran.differing), "nodes": dict(ran.nodes),
        },
    }  # fmt: skip


def quiet_polygraphy() -> None:
    """Polygraphy's logger prints to stdout unless told to use the logging module."""
    from polygraphy.logger import G_LOGGER

    G_LOGGER.use_python_logging_system = True


def opened(target: Target, request: Mapping[str, Any]) -> BaseRunner:
    """A runner for the request's artifact, or for its plain graphs."""
    options, steps = Options(**request["options"]), program.Program.from_json(request["program"])
    if request.get("graphs"):
        graphs = {name: Path(path) for name, path in request["graphs"].items()}
        if any(Graph(path).data.is_file() for path in graphs.values()):
            give_back_what_is_freed()
        return program.open_graphs(target, steps, graphs, options)
    return program.open_artifact(target, steps, unpacked(request["artifact"]), options, request["form"])


def packed(artifact: Artifact) -> dict[str, Any]:
    """An artifact as JSON, for the way to a child."""
    return artifact.__dict__ | {
        "files": {role: str(path) for role, path in artifact.files.items()},
        "fingerprint": dict(artifact.fingerprint),
    }


def unpacked(value: Mapping[str, Any]) -> Artifact:
    """The artifact that :func:`packed` described."""
    files = {role: Path(path) for role, path in value["files"].items()}
    texts = {key: tuple(value[key]) for key in ("forms", "advice")}
    return Artifact(**{**value, "files": files, **texts})


def measure_case(
    runner: BaseRunner,
    request: Mapping[str, Any],
    case: Mapping[str, Any],
    task: TaskMetrics | None = None,
    yardsticks: Mapping[str, Array] | None = None,
    firsts: Firsts | None = None,
) -> list[Measurement]:
    """Runs one case, once or as a sequence, and measures every output; a real input that ran well goes to ``task``.

    What the first case of every shape gave is left in ``firsts``.
    """
    tensors = read_tensors(Path(case["file"]))
    if yardsticks:
        tensors |= _lower_floors(case["name"], tensors, yardsticks)
    inputs = under(tensors, "input/")
    references, noises = under(tensors, "reference/"), under(tensors, "noise/")
    if case["steps"] > 1:
        stream, states = Stream(**request["stream"]), [State(**state) for state in request["state"]]
        outputs = joined(driven(partial(_infer, runner), inputs, case["steps"], stream, states), stream)
    else:
        outputs = _infer(runner, inputs)
    found = extra_outputs(case["name"], outputs, request["outputs"])
    for name, dtype in request["outputs"].items():
        undecided = tensors.get(f"undecided/{name}")
        measured = compare(case["name"], name, outputs.get(name), references[name], dtype, undecided)
        noise, noise_max_abs, moved = (float(x) for x in noises[name])
        known = {"noise": noise, "noise_max_abs": noise_max_abs, "moved": moved, "scale": case["scale"]}
        drift = _drift(tensors, name, outputs, references, request["stream"], case["steps"])
        if firsts is not None and measured.problem is None and not measured.bad and not measured.bad_reference:
            known["followed"] = _followed(name, outputs[name], references[name], firsts)
        found.append(Measurement(**{**measured.as_json(), **known, **drift}))
    if task is not None and all(m.problem is None and not m.bad and not m.bad_reference for m in found):
        task.add(case["name"], outputs, tensors)
    return found


def _followed(name: str, y: Array, y64: Array, firsts: Firsts) -> float | None:
    """``|(y - first y) - (y64 - first y64)| / |y64 - first y64|``: 1 for an artifact that answers one constant."""
    first = firsts.setdefault((name, y64.shape), (y, y64))
    if first[1] is y64 or not np.issubdtype(y64.dtype, np.floating):
        return None
    moves = y64 - first[1]
    size = l2(moves)
    return l2(y.astype(np.float64) - first[0] - moves) / size if size > 0.0 else None


def _lower_floors(case: str, tensors: Mapping[str, Array], yardsticks: Mapping[str, Array]) -> dict[str, Array]:
    """The figures of eager in a lower precision in place of its own. A case without them is an error, never a pass."""
    noise = under(yardsticks, f"noise/{case}/")
    moved = {name: value[2:] for name, value in under(tensors, "noise/").items()}
    floors = {f"noise/{name}": np.concatenate([noise[name], moved[name]]) for name in moved}
    floors |= {f"undecided/{name}": mask for name, mask in under(yardsticks, f"undecided/{case}/").items()}
    return floors | {f"drift/{name}": value for name, value in under(yardsticks, f"drift/{case}/").items()}


def _infer(runner: BaseRunner, inputs: Mapping[str, Array]) -> dict[str, Array]:
    # Copies both ways: a runtime may write to what it is given, and may reuse what it returns.
    given = {name: value.copy() for name, value in inputs.items()}
    return {name: np.array(value) for name, value in runner.infer(given, check_inputs=False).items()}


def _drift(
    tensors: Mapping[str, Array],
    name: str,
    outputs: Mapping[str, Array],
    references: Mapping[str, Array],
    stream: Mapping[str, Any] | None,
    steps: int,
) -> dict[str, tuple[float, ...]]:
    """The error after each step of a sequence beside eager's own, for the streamed output alone."""
    if stream is None or f"drift/{name}" not in tensors or outputs[name].shape != references[name].shape:
        return {}
    errors = step_errors(outputs[name], references[name], stream["axis"], steps)
    return {"drift": errors, "drift_noise": tuple(float(x) for x in tensors[f"drift/{name}"])}
