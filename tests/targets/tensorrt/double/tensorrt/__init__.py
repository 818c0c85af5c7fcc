"""TensorRT as its real bindings have it, with a CPU behind it: a recording double.

Every class, method, property, enum and signature comes from the surface that :mod:`tests.targets.tensorrt.surface` read
of the real bindings (``TENSORRT_SURFACE``), so that the double cannot have what the real thing has not: a behaviour for
a name that is not in the surface fails on import, a call that no real signature takes fails when it is made, and what
has no behaviour here says so. Every call is written to ``DOUBLE_LOG``.
"""

from __future__ import annotations

import enum
import inspect
import json
import os
from pathlib import Path
from typing import Any

SURFACE: dict[str, Any] = json.loads(Path(os.environ["TENSORRT_SURFACE"]).read_text())
LOG = os.environ.get("DOUBLE_LOG")
PLAIN = (str, int, float, type(None))  # a truth value is an int; TensorRT has a name bool of its own
__version__: str = os.environ.get("DOUBLE_VERSION", SURFACE["version"])


class NotTheRealThing(TypeError):
    """The caller used TensorRT in a way that the real bindings do not have."""


def note(call: str, arguments: dict[str, Any]) -> None:
    """One line per call."""
    if LOG:
        with Path(LOG).open("a") as log:
            log.write(json.dumps({"call": call, "arguments": {k: _said(v) for k, v in arguments.items()}}) + "\n")


def _said(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(value)} bytes"
    if isinstance(value, enum.Enum):
        return value.name
    return value if isinstance(value, PLAIN) else type(value).__name__


def bound(call: str, overloads: list[list[dict[str, Any]]], args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments by name, by the first real signature that takes them."""
    for parameters in overloads:
        signature = inspect.Signature(
            [
                inspect.Parameter(
                    p["name"], inspect.Parameter.POSITIONAL_OR_KEYWORD,
                    default=None if p["default"] else inspect.Parameter.empty,
                )
                for p in parameters
            ]
        )  # fmt: skip
        try:
            found = signature.bind(*args, **kwargs)
        except TypeError:
            continue
        return dict(found.arguments)
    raise NotTheRealThing(f"{call}{args}{kwargs} fits none of {overloads}")


def _enum(name: str, members: dict[str, int]) -> type:
    return enum.IntEnum(name.rpartition(".")[2], members)


def _method(owner: str, name: str, overloads: Any) -> Any:
    call = f"{owner}.{name}"

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        arguments = bound(call, overloads, args, kwargs) if overloads else dict(enumerate(args)) | kwargs
        note(call, {str(k): v for k, v in arguments.items()})
        if call not in behaviours.METHODS:
            if name == "__init__":
                return None
            raise NotImplementedError(f"the double does nothing for {call}")
        return behaviours.METHODS[call](self, **arguments)

    method.__name__ = name
    return method


def _property(owner: str, name: str, settable: bool) -> property:
    call = f"{owner}.{name}"

    def get(self: Any) -> Any:
        if call in behaviours.READ:
            return behaviours.READ[call](self)
        held = self.__dict__.get("double", {})
        if name not in held and not settable:  # what can be set is nothing until it is
            raise NotImplementedError(f"the double does nothing for {call}")
        return held.get(name)

    def put(self: Any, value: Any) -> None:
        note(f"{call} =", {"value": value})
        self.__dict__.setdefault("double", {})[name] = value

    return property(get, put if settable else None)


def _class(name: str, facts: dict[str, Any], made: dict[str, type]) -> type:
    bases = tuple(made[base] for base in facts["bases"]) or ((bytes,) if name == "IHostMemory" else (object,))
    space: dict[str, Any] = {n: _method(name, n, overloads) for n, overloads in facts["methods"].items()}
    space |= {n: _property(name, n, settable) for n, settable in facts["properties"].items()}
    if name == "IHostMemory":  # the real one lends its memory; bytes do so as well
        space.pop("__init__", None)
    for inner, members in SURFACE["enums"].items():
        if inner.startswith(f"{name}."):
            space[inner.rpartition(".")[2]] = nested = _enum(inner, members)
            space |= {member: nested[member] for member in members if member in facts["values"]}
    return type(name, bases, space)


def _function(name: str, overloads: Any) -> Any:
    def function(*args: Any, **kwargs: Any) -> Any:
        note(name, bound(name, overloads, args, kwargs) if overloads else {})
        if name not in behaviours.FUNCTIONS:
            raise NotImplementedError(f"the double does nothing for {name}")
        return behaviours.FUNCTIONS[name](*args, **kwargs)

    return function


def _build() -> dict[str, Any]:
    space: dict[str, Any] = {n: _enum(n, m) for n, m in SURFACE["enums"].items() if "." not in n}
    for alias, member in SURFACE["aliases"].items():
        kind, _, name = member.partition(".")
        space[alias] = space[kind][name]
    waiting = dict(SURFACE["classes"])
    while waiting:
        ready = [n for n, facts in waiting.items() if all(base in space for base in facts["bases"])]
        assert ready, f"bases of {sorted(waiting)} are unknown"
        for name in ready:
            space[name] = _class(name, waiting.pop(name), space)
    space |= {n: _function(n, overloads) for n, overloads in SURFACE["functions"].items()}
    return space


from . import behaviours  # noqa: E402

globals().update(_build())
behaviours.settle(globals(), SURFACE)
