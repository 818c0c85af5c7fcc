"""A user's function, loaded and called; only children do that."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from exporter.errors import ExporterError, Refused, nearest
from exporter.models.place import Place

# What libraries raise where there is no network, by the names of the classes: none of them has to be installed.
NETWORK = frozenset({
    "URLError", "gaierror", "ConnectionError", "ConnectionRefusedError", "ConnectTimeout", "ConnectError",
    "LocalEntryNotFoundError", "OfflineModeIsEnabled", "ProxyError", "MaxRetryError", "NewConnectionError",
})  # fmt: skip


def called(place: Place, options: Mapping[str, Any]) -> Any:
    """What the function gives. What it does to the working folder and to the path of imports is undone.

    Raises:
        Refused: ``unknown-model`` where there is no such function; ``bad-option`` for an option it does not take.
        Refused: ``factory-failed`` or ``needs-network``, with the line of the user's own code.
    """
    with _as_it_was():
        function = _function(place)
        _refuse_unknown_options(place, function, options)
        try:
            return function(**options)
        except ExporterError:
            raise
        except BaseException as error:
            raise _failed(place, error, f"{place.name}()") from error


@contextmanager
def _as_it_was() -> Iterator[None]:
    folder = Path.cwd()
    try:
        yield
    finally:
        os.chdir(folder)


def _function(place: Place) -> Callable[..., Any]:
    try:
        module = _file(Path(place.place)) if place.kind == "file" else _package(place)
    except ExporterError:
        raise
    except BaseException as error:  # SystemExit too: a script without a guard
        raise _failed(place, error, "importing it") from error
    function: Callable[..., Any] | None = getattr(module, place.name, None)
    if function is None or not callable(function):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise Refused(
            "unknown-model",
            f"{place.shown}: there is no function {place.name!r}{nearest(place.name, known)}",
            where=f"MODEL {place.shown}",
            why="MODEL names a function that returns a torch.nn.Module or a ModelDef, or a class of such a module",
            next=f"define {place.name} there",
        )
    return function


def _file(path: Path) -> ModuleType:
    """The module of a file, beside which it may import others, as when Python runs it."""
    name = f"own_{path.stem}"
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _package(place: Place) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(place.place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place.place}.".startswith(f"{error.name}."):
            raise  # the module is there, and what it imports is not
        raise Refused(
            "unknown-model",
            f"{place.shown}: there is no module {error.name!r}",
            where=f"MODEL {place.shown}, from {Path.cwd().name}",
            why="PACKAGE.MODULE is imported as Python does, from the installed packages and the folder you are in",
            next=f"python -c 'import {place.place}'",
        ) from error


def _refuse_unknown_options(place: Place, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    unknown = [name for name in options if name not in parameters]
    if unknown:
        raise Refused(
            "bad-option",
            f"--set {unknown[0]}=... is no option of {place.shown}{nearest(unknown[0], list(parameters))}",
            where=f"model {place.shown}",
            why=f"options of {place.shown}: {', '.join(parameters) or 'none'}",
            next="give parameters of the function",
        )


def _failed(place: Place, error: BaseException, doing: str) -> Refused:
    chain, seen = [error], {id(error)}
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and id(cause) not in seen:
        chain.append(cause)
        seen.add(id(cause))
    network = any(type(part).__name__ in NETWORK for part in chain)
    message = next((line for line in str(error).splitlines() if line.strip()), "")
    if network:
        return Refused(
            "needs-network",
            f"{doing} asked for the network: {type(error).__name__}: {message}",
            where=f"MODEL {place.shown}{_line(error, place)}",
            why="an export depends on files that are here, so that it gives the same tomorrow",
            next="fetch the weights beforehand and give them with --checkpoint, or load them from a file",
        )
    module = Path(place.place).stem if place.kind == "file" else place.place
    return Refused(
        "factory-failed",
        f"{doing} raised {type(error).__name__}: {message}",
        where=f"MODEL {place.shown}{_line(error, place)}",
        why="the function is called as it is, with the options of --set",
        next=f"python -c 'import {module} as m; m.{place.name}()'",
    )


def _line(error: BaseException, place: Place) -> str:
    """The innermost line of the file that was named, else the innermost line at all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if place.kind == "file" and frame.filename == place.place]
    chosen = own or list(frames)
    return f", {Path(chosen[-1].filename).name}:{chosen[-1].lineno}: {chosen[-1].line}" if chosen else ""
