"""A subject that is loaded, whatever it is, and how an artifact is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from exporter.target import DeviceCall, Layer

Arrays = Mapping[str, np.ndarray]

# Enough for a median of each layer; layers are looked at, not compared.
LAYER_RUNS = 20


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


def open_artifact(request: Mapping[str, Any], feeds: Arrays) -> Opened:
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

    return Opened(first, bind, _arrays, lambda last: _spoil(last, feeds), facts, runner.deactivate)


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


def spoil(arrays: Arrays, feeds: Arrays) -> None:
    """Fills a runtime's own output buffers with what no right answer holds; inputs are left alone."""
    for array in arrays.values():
        if not array.flags.writeable or any(np.may_share_memory(array, feed) for feed in feeds.values()):
            continue
        if array.dtype.kind == "f":
            array.fill(np.nan)
        elif array.dtype.kind in "iu":
            array.fill(np.iinfo(array.dtype).max)
