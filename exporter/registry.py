"""Finds targets and model definitions: a file in ``targets/`` or ``model_defs/`` is registered by existing.

Names come from file and function names, read without importing, so ``exporter --help`` costs no runtime. Our folders
are found by where this package lies, never by ``sys.path``: a user's own ``targets/`` folder cannot shadow ours.
Other packages join by the entry points ``exporter.targets`` and ``exporter.models``.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from exporter.errors import ExporterError, Incomplete, Refused, nearest
from exporter.spec import ModelDef, model_name
from exporter.target import Target

ROOT = Path(__file__).resolve().parent.parent


def _python_files(folder: Path) -> list[Path]:
    """The files and packages of a folder that may register something."""
    found = [p for p in folder.glob("*.py") if not p.name.startswith("_")]
    found += [p for p in folder.glob("*/__init__.py") if not p.parent.name.startswith(("_", "."))]
    return sorted(found)


def _load(folder: str, name: str) -> ModuleType:
    """Imports ``folder/name`` of our own tree as ``exporter_<folder>.<name>``, whatever ``sys.path`` holds."""
    package = f"exporter_{folder}"
    if package not in sys.modules:
        place = ROOT / folder
        spec = importlib.util.spec_from_file_location(
            package, place / "__init__.py", submodule_search_locations=[str(place)]
        )
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[package] = module
        spec.loader.exec_module(module)
    return importlib.import_module(f"{package}.{name}")


@cache
def _entry_points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def target_names() -> list[str]:
    """Names of all targets, ours and joined ones, without importing any."""
    own = [path.stem.replace("_", "-") for path in _python_files(ROOT / "targets")]
    return sorted({*own, *_entry_points("exporter.targets")})


@cache
def target(name: str) -> Target:
    """The target of that name.

    Raises:
        Refused: ``unknown-target``, with the nearest names.
        Incomplete: ``broken-target``, when its file cannot be imported.
    """
    names = target_names()
    if name not in names:
        raise Refused(
            "unknown-target",
            f"no target is called {name!r}{nearest(name, names)}",
            why="a target is a file of targets/ or an entry point of another package",
            next="exporter targets",
        )
    try:
        return _target_class(name)()
    except Exception as error:  # whatever a stranger's file does on import, the others go on
        raise _broken("target", name, error) from error


def _target_class(name: str) -> type[Target]:
    joined = _entry_points("exporter.targets").get(name)
    if joined is not None:
        found: type[Target] = joined.load()
        return found
    module = _load("targets", name.replace("-", "_"))
    classes: list[type[Target]] = [
        value
        for value in vars(module).values()
        # Asked of its type: in Python 3.10 `isinstance` takes an alias such as list[int] for a class.
        if issubclass(type(value), type) and issubclass(value, Target) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise TypeError(f"the file must hold exactly one Target class, and holds {len(classes)}")
    return classes[0]


def _broken(kind: str, name: str, error: Exception) -> Incomplete:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return Incomplete(
        f"broken-{kind}",
        f"{kind} {name} cannot be loaded: {type(error).__name__}: {error}",
        where=f"{frame.filename}:{frame.lineno}",
        why=f"a {kind} is shown with its reason and never silently missing",
        next=f"mend that line, or remove the package that brings {name}",
    )


def graph_runners() -> list[Target]:
    """Targets that can run a plain ONNX graph here, the one to ask first in front; broken ones are left out."""
    able = []
    for name in target_names():
        with suppress(Incomplete):
            found = target(name)
            if found.runs_graphs is not None and found.available().present:
                able.append(found)
    return sorted(able, key=lambda t: t.runs_graphs or 0)


def quantiser() -> Target | None:
    """A target that writes Q/DQ into graphs for others, where one is here."""
    for name in target_names():
        with suppress(Incomplete):
            found = target(name)
            if found.quantises and found.available().present:
                return found
    return None


def _model_places() -> dict[str, tuple[str, str]]:
    return _marked("model")


@cache
def _marked(mark: str) -> dict[str, tuple[str, str]]:
    """``{model name: (family, function name)}`` of functions under a mark, read without importing them."""
    places: dict[str, tuple[str, str]] = {}
    for path in _python_files(ROOT / "model_defs"):
        family = path.parent.name if path.name == "__init__.py" else path.stem
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any(_is_mark(d, mark) for d in node.decorator_list):
                places[model_name(node.name)] = (family, node.name)
    return places


def _is_mark(decorator: ast.expr, mark: str) -> bool:
    return isinstance(decorator, ast.Name) and decorator.id == mark


def defines(name: str, family: str) -> bool:
    """Whether a definition here has that name, and is of that family: a user's own may have the name of one of ours."""
    return name in model_names() and (name not in _model_places() or _model_places()[name][0] == family)


def collections() -> list[str]:
    """Names of the functions that make a definition of any name of a library: ``NAME:WHAT``."""
    return sorted(_marked("collection"))


def collection(name: str) -> Any:
    """The function behind a collection's name."""
    family, function = _marked("collection")[name]
    return getattr(_load("model_defs", family), function)


def model_names() -> list[str]:
    """Names of all model definitions, without importing any."""
    return sorted({*_model_places(), *_entry_points("exporter.models")})


def model_sources(name: str) -> list[Path]:
    """The source files of a model's family: what the trace depends on besides weights and options."""
    joined = _entry_points("exporter.models").get(name)
    if joined is not None:
        return _package_sources(joined.module)
    family, _ = _model_places()[name]
    folder = ROOT / "model_defs" / family
    found = set(folder.rglob("*.py")) if folder.is_dir() else {folder.with_suffix(".py")}
    while more := {path for source in found for path in _imported_beside(source)} - found:
        found |= more
    return sorted(found)


def _package_sources(module: str) -> list[Path]:
    """Every source file of the package that a module of another distribution belongs to, or its own file."""
    whole = importlib.util.find_spec(module.partition(".")[0])
    if whole is None:
        return []
    folders = [Path(folder) for folder in whole.submodule_search_locations or ()]
    if folders:
        return sorted(path for folder in folders for path in folder.rglob("*.py"))
    return [Path(whole.origin)] if whole.origin else []


def _imported_beside(source: Path) -> Iterator[Path]:
    """The files that a definition's file imports from its own tree: shared helpers, other families' blocks."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = source.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            places = [folder, *(folder / alias.name for alias in node.names)]
            yield from (place.with_suffix(".py") for place in places if place.with_suffix(".py").is_file())
            yield from (place / "__init__.py" for place in places if (place / "__init__.py").is_file())


def model(name: str, options: Mapping[str, Any] | None = None) -> ModelDef:
    """The model definition of that name, made with the options of ``--set``.

    Raises:
        Refused: ``unknown-model`` with the nearest names, or ``bad-option`` for an option it does not take.
        Incomplete: ``broken-model``, when its definition raises.
    """
    names = model_names()
    if name not in names:
        raise Refused(
            "unknown-model",
            f"no model is called {name!r}{nearest(name, names)}",
            why="a model is a definition in model_defs/ or an entry point of another package",
            next="exporter models",
        )
    try:
        made_by = factory(name)
        known = list(inspect.signature(made_by).parameters)
        _refuse_unknown_options(name, known, options or {})
        made = made_by(**(options or {}))
        if not isinstance(made, ModelDef):
            raise TypeError(f"its function returned {type(made).__name__}, not a ModelDef")
    except ExporterError:
        raise
    except Exception as error:  # as above: a definition is a stranger's code
        raise _broken("model", name, error) from error
    return made


def factory(name: str) -> Any:
    """The function behind a model's name: its parameters are the options of ``--set``, its docstring the summary."""
    joined = _entry_points("exporter.models").get(name)
    if joined is not None:
        return joined.load()
    family, function = _model_places()[name]
    return getattr(_load("model_defs", family), function)


def refuse_inputs(name: str, texts: Sequence[str]) -> None:
    """A registered definition says what its inputs are.

    Raises:
        Refused: ``bad-input`` for any ``--input``.
    """
    if texts:
        raise Refused(
            "bad-input",
            f"--input {texts[0]} is given, and {name} says itself what it takes",
            where=f"model {name}",
            why="--input is for a model of your own; a definition has its sizes under --dim and --set",
            next=f"exporter models {name}",
        )


def _refuse_unknown_options(name: str, known: list[str], options: Mapping[str, Any]) -> None:
    unknown = [key for key in options if key not in known]
    if unknown:
        raise Refused(
            "bad-option",
            f"--set {unknown[0]}=... is no option of {name}{nearest(unknown[0], known)}",
            where=f"model {name}",
            why=f"options of {name}: {', '.join(known) or 'none'}",
            next=f"exporter models {name}",
        )
