"""The child that times one subject: opens it, then obeys commands one at a time and is paused in between.

Both kinds of subject, a compiled artifact and eager PyTorch, differ only in how they are opened; the protocol is one:

    child  -> {"load_ns", "first_run_ns", "peak_rss_bytes", "check", "check_ns", "tick_ns"}    when open
    parent -> {"do": "warm", "runs", "seconds", "most_seconds"}                   child -> {"ns": [...]}
    parent -> {"do": "block", "calls", "settle", "each", "clock"}                 child -> {"ns": [...]}
    parent -> {"do": "check"}                                                     child -> {"ok", "reason", "errors"}
    parent -> {"do": "facts"}                                                     child -> {"precision", "layers", ...}
    parent -> {"do": "quit"}, or no more messages                                 the child returns

A check judges what the most recent timed call returned, so a subject that stops working while it is timed is caught
(the idea of MLPerf's compliance test TEST01).
"""

from __future__ import annotations

import gc
import hashlib
import math
import resource
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from exporter.errors import Incomplete, Refused
from exporter.latency.clock import (
    PROCESSOR,
    WALL,
    Clock,
    Monotonic,
    Processor,
    resolution_ns,
    time_device,
    time_each,
    time_total,
)
from exporter.target import DeviceCall, Layer

if TYPE_CHECKING:
    from polygraphy.backend.base import BaseRunner

Arrays = Mapping[str, np.ndarray]

INPUT, REFERENCE, UNDECIDED = "input/", "reference/", "undecided/"
# Enough for a median of each layer; layers are looked at, not compared.
LAYER_RUNS = 20
# A model of microseconds would fill a message with its warm-up; every k-th call is record enough.
WARM_RECORD = 2000


class Channel(Protocol):
    """The child's side of the conversation (``exporter.isolate``)."""

    def send(self, value: Any) -> None:
        """Sends one JSON value."""

    def receive(self) -> Any:
        """The next JSON value, None when no more will come."""


@dataclass(frozen=True)
class Opened:
    """A subject that is loaded.

    Attributes:
        first: one run the plain way, as an application's first would be.
        bind: gives the call that is timed, on buffers made beforehand; nothing of ours is inside it.
        arrays: what a call returned, as named arrays; never inside the clock.
        spoil: overwrites what a call returned where the next call must write it anew, so that a call that computes
            nothing cannot pass off the last answer as its own.
        facts: what ran.
        close: gives everything back.
    """

    first: Callable[[], Any]
    bind: Callable[[], Callable[[], Any]]
    arrays: Callable[[Any], Arrays]
    spoil: Callable[[Any], None]
    facts: Callable[[], dict[str, Any]]
    close: Callable[[], None]


def artifact(request: Mapping[str, Any], channel: Channel) -> None:
    """Times a compiled artifact.

    Args:
        request: ``target``; ``artifact`` and ``options`` (:meth:`exporter.preflight.Ready.as_request`); ``program``;
            ``form`` or null; ``threads``; ``tensors``, a safetensors file with ``input/NAME`` and ``reference/NAME``;
            ``allowed``, the largest relative L2 per output; optional ``undecided``, the file and the prefix of what
            hangs on rounding, where they are not the case's own; optional ``layers``, whether to time those as well.
        channel: the conversation with the parent.
    """
    serve(_opened_artifact, request, channel)


def eager(request: Mapping[str, Any], channel: Channel) -> None:
    """Times the model in eager PyTorch.

    Args:
        request: ``build`` as :func:`exporter.define.eager` takes it; ``inputs`` and ``outputs``, the names in the
            definition's order; ``threads``; ``tensors`` and ``allowed`` as for :func:`artifact`; optional
            ``precision`` (``fp32``, ``fp16``, ``bf16``), ``device`` and ``tf32``.
        channel: the conversation with the parent.
    """
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        raise Incomplete("torch-absent", "torch absent", next="pip install '.[trace]' in a checkout of exporter")
    serve(_opened_eager, request, channel)


def serve(
    opening: Callable[[Mapping[str, Any], Arrays], Opened],
    request: Mapping[str, Any],
    channel: Channel,
    clock: Clock | None = None,
) -> None:
    """Opens a subject, reports on it, and obeys until told to quit."""
    clock = clock or Monotonic()
    feeds = tensors(request["tensors"], INPUT)
    untouched = digests(feeds)
    start = clock.ns()
    opened = opening(request, feeds)
    loaded = clock.ns()
    opened.first()
    ran = clock.ns()
    # Taken before references are loaded and compared: from here on the peak would be ours, not the subject's.
    peak = peak_rss_bytes()
    try:
        references = tensors(request["tensors"], REFERENCE)
        session = Session(
            opened,
            feeds,
            untouched=untouched,
            references=references,
            allowed=request["allowed"],
            clock=clock,
            undecided=tensors(*request.get("undecided", (request["tensors"], UNDECIDED))),
        )
        figures = {"load_ns": loaded - start, "first_run_ns": ran - loaded, "peak_rss_bytes": peak}
        channel.send(session.introduction() | figures)
        while (command := channel.receive()) is not None and command["do"] != "quit":
            channel.send(session.obey(command))
    finally:
        opened.close()


class Session:
    """An opened subject and what its most recent call returned."""

    def __init__(
        self,
        opened: Opened,
        feeds: Arrays,
        *,
        untouched: Mapping[str, str],
        references: Arrays,
        allowed: Mapping[str, float],
        clock: Clock,
        undecided: Arrays | None = None,
    ) -> None:
        self._opened, self._clock = opened, clock
        self._call = opened.bind()
        self._last = self._call()
        self._host_ns: float | None = None
        self._feeds, self._untouched = feeds, untouched
        self._references, self._allowed, self._undecided = references, allowed, undecided or {}
        # What loading left behind stays: collecting before every block then looks only at what came since.
        gc.collect()
        gc.freeze()

    def introduction(self) -> dict[str, Any]:
        """What is known before any timing: whether the first answer is right, what judging it takes, the clock."""
        start = self._clock.ns()
        check = self.check()
        return {
            "check": check,
            "check_ns": self._clock.ns() - start,
            "tick_ns": resolution_ns(self._clock),
        }

    def obey(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Does one thing and tells how it went."""
        do = command["do"]
        if do == "warm":
            return self.warm(command["runs"], command["seconds"], command["most_seconds"])
        if do == "block":
            return self.block(command["calls"], command["settle"], command["each"], command.get("clock", WALL))
        if do == "check":
            return self.check()
        assert do == "facts", do
        return self._opened.facts() | self._device_facts()

    def _spent(self, calls: int, each: bool, clock: str = WALL) -> list[float]:
        """Nanoseconds of every call, or of all; by the device's own clock where there is one."""
        if isinstance(self._call, DeviceCall):
            own, total = time_device(self._call, calls, self._clock)
            self._host_ns = total / calls
            return own if each else [sum(own)]
        timed = time_each if each else time_total
        spent, self._last = timed(self._call, calls, Processor() if clock == PROCESSOR else self._clock)
        return [float(ns) for ns in spent]

    def _device_facts(self) -> dict[str, Any]:
        """What the device's clock leaves out: copies, and the host's part of a call."""
        if not isinstance(self._call, DeviceCall):
            return {}
        there, back = self._call.copies_ns()
        return {"copies_ns": {"in": there, "out": back}, "host_ns": self._host_ns}

    def warm(self, runs: int, seconds: float, most_seconds: float) -> dict[str, Any]:
        """Runs at least so often and so long, whatever the timings look like; a slow model stops at the upper bound.

        The rule is fixed: warming up "until it looks stable" would drop different amounts in different runs (pyperf's
        manual; Barrett et al., "Virtual machine warmup blows hot and cold", OOPSLA 2017). Drift is tested after.
        """
        spent: list[float] = []
        total = 0.0
        while total < most_seconds * 1e9 and (len(spent) < runs or total < seconds * 1e9):
            one = self._spent(1, each=True)
            spent += one
            total += one[0]
        return {"ns": spent[:: max(1, len(spent) // WARM_RECORD)], "runs": len(spent)}

    def block(self, calls: int, settle: int, each: bool, clock: str = WALL) -> dict[str, Any]:
        """Times a block; the collector of garbage does not run in it."""
        self._opened.spoil(self._last)
        gc.collect()
        gc.disable()
        try:
            for _ in range(settle):
                self._last = self._call()
            spent = self._spent(calls, each, clock)
        finally:
            gc.enable()
        return {"ns": spent}

    def check(self) -> dict[str, Any]:
        """Whether what the most recent call returned is right."""
        outputs = settled(self._opened.arrays(self._last), self._references, self._undecided)
        checked = judged(outputs, self._references, self._allowed)
        if not checked["ok"] and digests(self._feeds) != self._untouched:
            checked["reason"] += "; the call writes into its own inputs, so every run computes something else"
        return checked


def digests(arrays: Arrays) -> dict[str, str]:
    """A digest of every array, to tell later whether a call wrote into its inputs."""
    return {name: hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() for name, array in arrays.items()}


def settled(outputs: Arrays, references: Arrays, undecided: Arrays) -> Arrays:
    """The outputs with the reference's answer where any is right: whole numbers that hang on rounding alone."""
    fits = {n: mask for n, mask in undecided.items() if n in outputs and outputs[n].shape == mask.shape}
    return {**outputs, **{name: np.where(mask, references[name], outputs[name]) for name, mask in fits.items()}}


def judged(outputs: Arrays, references: Arrays, allowed: Mapping[str, float]) -> dict[str, Any]:
    """Whether outputs are the reference within what is allowed, as a JSON value: ``{"ok", "reason", "errors"}``.

    Every reference needs an output and a limit, so that a renamed or dropped output is not a check less. An error that
    is no number is reported as null and is never right.
    """
    errors: dict[str, float | None] = {}
    problems = [] if references else ["there is no reference to compare with"]
    for name, reference in references.items():
        error, problem = _compared(outputs.get(name), reference, allowed.get(name), name)
        errors[name] = error
        problems += [problem] if problem else []
    return {"ok": not problems, "reason": "; ".join(problems), "errors": errors}


def _compared(
    output: np.ndarray | None, reference: np.ndarray, limit: float | None, name: str
) -> tuple[float | None, str]:
    """The error of one output and what is wrong with it, if anything."""
    if output is None:
        return None, f"output {name} is missing"
    if limit is None:
        return None, f"output {name} has no limit to be judged by"
    if output.shape != reference.shape:
        return None, f"output {name} has shape {list(output.shape)}, expected {list(reference.shape)}"
    error = relative_l2(output, reference)
    if not math.isfinite(error):
        return None, f"output {name} is not comparable: it or its reference holds NaN or infinity, or should be zero"
    # Written so that anything but a proven "within" is a problem.
    return error, "" if error <= limit else f"output {name} is off by {error:.2g} (relative L2), allowed {limit:.2g}"


def relative_l2(output: np.ndarray, reference: np.ndarray) -> float:
    """``|output - reference| / |reference|`` in float64; infinite where the reference is zero and the output is not."""
    expected = np.asarray(reference, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = float(np.linalg.norm((np.asarray(output, dtype=np.float64) - expected).ravel()))
        size = float(np.linalg.norm(expected.ravel()))
    if size == 0.0:
        return 0.0 if distance == 0.0 else math.inf
    return distance / size


def peak_rss_bytes() -> int:
    """The most memory this process held at once.

    The kernel's own mark of this address space: ``ru_maxrss`` survives ``exec`` and would report the parent's.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def tensors(path: str, prefix: str) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file whose names start with a prefix, without it, in memory of their own."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (no mapping)
        return {name[len(prefix) :]: np.array(file.get_tensor(name)) for name in names}


def _opened_artifact(request: Mapping[str, Any], feeds: Arrays) -> Opened:
    """Opens through the target alone; loading ends when the runner is active."""
    from exporter import program
    from exporter.parity.worker import unpacked
    from exporter.registry import target
    from exporter.target import Options

    options = Options(**{**request["options"], "threads": request["threads"]})
    runtime = target(request["target"])
    steps = program.Program.from_json(request["program"])
    runner = program.open_artifact(runtime, steps, unpacked(request["artifact"]), options, request.get("form"))
    runner.activate()

    def first() -> Any:
        return runner.infer(dict(feeds), check_inputs=False)

    def bind() -> Callable[[], Any]:
        return program.timer(runtime, runner, feeds)

    def facts() -> dict[str, Any]:
        ran = program.ran(runtime, runner)
        found: dict[str, Any] = {
            "precision": ran.precision,
            "layers": dict(ran.layers),
            "providers": dict(ran.providers),
        }
        if request.get("layers"):
            found["layer_times"] = _layer_times(program.layers(runtime, runner, feeds, LAYER_RUNS))
        return found

    return Opened(first, bind, _arrays, lambda last: _spoil(last, feeds), facts, lambda: _deactivated(runner))


def _layer_times(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """The slowest first: what there is to gain stands on top."""
    return [layer.__dict__ | {"nodes": list(layer.nodes)} for layer in sorted(layers, key=lambda layer: -layer.ns)]


def _arrays(last: Any) -> Arrays:
    return last.outputs() if isinstance(last, DeviceCall) else dict(last)


def _spoil(last: Any, feeds: Arrays) -> None:
    if isinstance(last, DeviceCall):
        last.spoil()
    else:
        spoil(last, feeds)


def _deactivated(runner: BaseRunner) -> None:
    runner.deactivate()


def spoil(arrays: Arrays, feeds: Arrays) -> None:
    """Fills a runtime's own output buffers with what no right answer holds; inputs are left alone."""
    for array in arrays.values():
        if not array.flags.writeable or any(np.may_share_memory(array, feed) for feed in feeds.values()):
            continue
        if array.dtype.kind == "f":
            array.fill(np.nan)
        elif array.dtype.kind in "iu":
            array.fill(np.iinfo(array.dtype).max)


def _opened_eager(request: Mapping[str, Any], feeds: Arrays) -> Opened:
    """Rebuilds the model; loading includes the import of PyTorch, as it does for whoever runs it."""
    import torch

    from exporter.define import eager as built

    device = torch.device(request.get("device", "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise Incomplete("torch-absent", "torch here cannot use the GPU", next="install a build of torch with CUDA")
    torch.set_num_threads(request["threads"])
    _set_tf32(bool(request.get("tf32", False)))
    dtype = _eager_dtype(request.get("precision", "fp32"))
    module = built(request["build"]).to(device=device, dtype=dtype)
    inputs = [_placed(torch.from_numpy(feeds[name]), device, dtype) for name in request["inputs"]]
    counts = {name: int(feeds[name]) for name in request.get("repeats", [])}
    names = list(request["outputs"])

    @torch.inference_mode()
    def call() -> Any:
        return module(*inputs, **counts)

    def facts() -> dict[str, Any]:
        kinds = sorted({str(p.dtype).removeprefix("torch.") for p in module.parameters()})
        return {"precision": "+".join(_short(kind) for kind in kinds) or "fp32", "layers": {}, "providers": {}}

    if device.type == "cuda":
        timed = _CudaCall(call, inputs, names)
        return Opened(timed, lambda: timed, _arrays, lambda last: last.spoil(), facts, lambda: None)
    # Eager returns tensors of its own making, which may be views of its inputs or weights: never write into them.
    return Opened(call, lambda: call, lambda last: _named(last, names), lambda _: None, facts, lambda: None)


class _CudaCall(DeviceCall):
    """Eager on a GPU, timed as a compiled artifact there is: between two events of one stream, copies apart."""

    def __init__(self, call: Callable[[], Any], inputs: Sequence[Any], names: Sequence[str]) -> None:
        import torch

        self._call, self._inputs, self._names, self._last = call, inputs, names, None
        self._start, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]

    def __call__(self) -> _CudaCall:
        self._start.record()
        self._last = self._call()
        self._end.record()
        self._end.synchronize()  # a launch is not a result
        return self

    def elapsed_ns(self) -> float:
        return float(self._start.elapsed_time(self._end)) * 1e6

    def copies_ns(self) -> tuple[float, float]:
        hosts = [tensor.cpu().pin_memory() for tensor in self._inputs]
        outputs = _flat(self._last)
        return (
            self._timed(lambda: [host.to(tensor.device) for host, tensor in zip(hosts, self._inputs, strict=True)]),
            self._timed(lambda: [tensor.cpu() for tensor in outputs]),
        )

    def _timed(self, work: Callable[[], Any]) -> float:
        self._start.record()
        work()
        self._end.record()
        self._end.synchronize()
        return self.elapsed_ns()

    def outputs(self) -> Arrays:
        return _named(self._last, self._names)

    def spoil(self) -> None:
        """Nothing: eager returns tensors of its own making, which may be views of its inputs or weights."""


def _eager_dtype(precision: str) -> Any:
    import torch

    known = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if precision not in known:
        raise Refused(
            "eager-precision",
            f"eager PyTorch cannot be timed in {precision}",
            why=f"it is timed in one of {', '.join(known)}",
            next="profile with --precision fp32, or leave the eager subject out",
        )
    return known[precision]


def _short(kind: str) -> str:
    return {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}.get(kind, kind)


def _set_tf32(allowed: bool) -> None:
    """The same arithmetic as the target's: TF32 is a precision of its own."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def _placed(tensor: Any, device: Any, dtype: Any) -> Any:
    return tensor.to(device=device, dtype=dtype) if tensor.is_floating_point() else tensor.to(device)


def _named(outputs: Any, names: Sequence[str]) -> Arrays:
    """What a module returned, as arrays under the definition's names."""
    flat = _flat(outputs)
    if len(flat) != len(names):
        # Cutting the longer one would drop an output unseen; naming none of them makes the check fail on all.
        return {}
    return {name: _array(tensor) for name, tensor in zip(names, flat, strict=True)}


def _flat(outputs: Any) -> list[Any]:
    """Nested dicts, tuples and lists of tensors, in order."""
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    if not isinstance(outputs, (tuple, list)):
        return [outputs]
    return [tensor for part in outputs for tensor in _flat(part)]


def _array(tensor: Any) -> np.ndarray:
    wide = tensor.double() if tensor.is_floating_point() else tensor
    array: np.ndarray = wide.cpu().numpy()
    return array
