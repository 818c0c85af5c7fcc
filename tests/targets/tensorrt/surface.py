"""Prints the whole surface of TensorRT's real bindings as JSON; run in a child, on libraries that do nothing.

``version``; ``aliases`` (``{name: "ENUM.MEMBER"}``); ``classes``, each with ``bases``, ``methods``, ``properties``
(whether they can be set) and ``values``; ``enums`` (``{name: {member: number}}``); ``functions``. A signature is a list
of ``{"name", "default"}``, one list per overload, ``self`` left out, read from the first lines of the docstrings that
pybind11 writes.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

KEPT_DUNDERS = {"__init__", "__getitem__", "__len__"}


def signatures(function: Any, name: str) -> list[list[dict[str, Any]]]:
    """The parameters of every overload; a Python function of the package has its own way to tell them."""
    doc = getattr(function, "__doc__", None) or ""
    found = re.findall(rf"^(?:\d+\. )?{re.escape(name)}\((.*)\) ->", doc, re.MULTILINE)
    return [parameters(text) for text in found if text not in ("*args, **kwargs", "self: object, *args, **kwargs")]


def parameters(text: str) -> list[dict[str, Any]]:
    """``self: T, a: int, b: str = None`` without ``self``; brackets may hold commas."""
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += (letter in "[(<{") - (letter in "])>}")
        if letter == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts = [part.strip() for part in [*parts, text[start:]] if part.strip()]
    named = [re.match(r"(\w+)(?::[^=]*)?(?:= ?(.*))?$", part) for part in parts]
    return [
        {"name": match[1], "default": match[2] is not None}
        for match in named
        if match is not None and match[1] != "self"
    ]


def describe(kind: type, known: dict[type, str]) -> dict[str, Any]:
    methods: dict[str, Any] = {}
    properties: dict[str, bool] = {}
    values: dict[str, str] = {}
    for name, value in vars(kind).items():
        if name.startswith("__") and name not in KEPT_DUNDERS:
            continue
        if isinstance(value, property):
            properties[name] = value.fset is not None
        elif callable(value) and not isinstance(value, type):
            methods[name] = signatures(value, name)
        elif not callable(value) and not name.startswith("_"):
            values[name] = repr(value)
    bases = [known[base] for base in kind.__bases__ if base in known]
    return {"bases": bases, "methods": methods, "properties": properties, "values": values}


def surface(module: Any) -> dict[str, Any]:
    classes = {n: v for n, v in vars(module).items() if isinstance(v, type) and not n.startswith("_")}
    enums = {n: v for n, v in classes.items() if hasattr(v, "__members__")}
    known = {v: n for n, v in classes.items()}
    found = {n: describe(v, known) for n, v in classes.items() if n not in enums}
    functions = {
        n: signatures(v, n)
        for n, v in vars(module).items()
        if callable(v) and not isinstance(v, type) and not n.startswith("_")
    }
    nested = {
        f"{n}.{inner}": {m: int(x) for m, x in value.__members__.items()}
        for n, kind in classes.items()
        for inner, value in vars(kind).items()
        if isinstance(value, type) and hasattr(value, "__members__")
    }
    names = {v: n for n, v in enums.items()}
    aliases = {
        n: f"{names[type(v)]}.{v.name}" for n, v in vars(module).items() if not n.startswith("_") and type(v) in names
    }
    return {
        "aliases": aliases,
        "version": module.__version__,
        "classes": found,
        "enums": {n: {m: int(x) for m, x in v.__members__.items()} for n, v in enums.items()} | nested,
        "functions": functions,
    }


if __name__ == "__main__":
    import tensorrt_bindings

    json.dump(surface(tensorrt_bindings), sys.stdout, indent=1, sort_keys=True)
