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
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from exporter.errors import Incomplete
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
from exporter.latency.eager import open_eager
from exporter.latency.opened import Arrays, Opened, open_artifact
from exporter.target import DeviceCall

INPUT, REFERENCE, UNDECIDED = "input/", "reference/", "undecided/"
# A model of microseconds would fill a message with its warm-up; every k-th call is record enough.
WARM_RECORD = 2000


class Channel(Protocol):
    """The child's side of the conversation (``exporter.isolate``)."""

    def send(self, value: Any) -> None:
        """Sends one JSON value."""

    def receive(self) -> Any:
        """The next JSON value, None when no more will come."""


def artifact(request: Mapping[str, Any], channel: Channel) -> None:
    """Times a compiled artifact.

    Args:
        request: ``target``; ``artifact`` and ``options`` (:meth:`exporter.preflight.Ready.as_request`); ``program``;
            ``form`` or null; ``threads``; ``tensors``, a safetensors file with ``input/NAME`` and ``reference/NAME``;
            ``allowed``, the largest relative L2 per output; optional ``undecided``, the file and the prefix of what
            hangs on rounding, where they are not the case's own; optional ``layers``, whether to time those as well.
        channel: the conversation with the parent.
    """
    serve(open_artifact, request, channel)


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
    serve(open_eager, request, channel)


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
