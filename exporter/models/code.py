"""A user's function, loaded and called; only children do that."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from exporter.errors import ExporterError, Refused, nearest
from exporter.models.place import Place

OURS = str(Path(__file__).resolve().parents[1])
LONGEST = 300  # characters of what a stranger's error says
# What libraries raise where there is no network, by the names of the classes: none of them has to be installed.
NETWORK = frozenset({
    "URLError", "gaierror", "ConnectionError", "ConnectionRefusedError", "ConnectTimeout", "ConnectError",
    "LocalEntryNotFoundError", "OfflineModeIsEnabled", "ProxyError", "MaxRetryError", "NewConnectionError",
})  # fmt: skip


def called(place: Place, options: Mapping[str, Any]) -> Any:
    """What the function gives. What it does to the working folder is undone.

    Raises:
        Refused: ``unknown-model`` where there is no such function; ``bad-option`` for an option that it does not take,
            or one that it needs.
        Refused: ``factory-failed`` or ``needs-network``, with the line of the user's own code.
    """
    with _as_it_was():
        function = _function(place)
        _refuse_options(place, function, options)
        try:
            return function(**options)
        except ExporterError:
            raise
        except BaseException as error:
            raise _failed(place, error, f"{place.name}()", options) from error


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
        raise _failed(place, error, "importing it", {}) from error
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


@cache
def _file(path: Path) -> ModuleType:
    """The module of a file, beside which it may import others, as when Python runs it; run once, as of a package.

    What it registers with PyTorch, an operator of its own, can be registered once.
    """
    name = f"own_{path.stem}"
    sys.path.insert(0, str(path.parent))
    if (path.parent / "__init__.py").is_file() and path.stem.isidentifier():
        return _within_package(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _within_package(path: Path) -> ModuleType:
    """A file of a package, which may import relatively, as the module that it is of its package."""
    root, names = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        root, names = root.parent, [root.name, *names]
    sys.path.insert(0, str(root))
    return importlib.import_module(".".join(names))


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


def _refuse_options(place: Place, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # of what is written in C nobody knows
        return
    parameters = signature.parameters
    known = [name for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    unknown = [name for name in options if name not in known]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        raise Refused(
            "bad-option",
            f"--set {unknown[0]}=... is no option of {place.shown}{nearest(unknown[0], known)}",
            where=f"model {place.shown}",
            why=f"options of {place.shown}: {', '.join(known) or 'none'}",
            next="give parameters of the function",
        )
    missing = [name for name in known if parameters[name].default is inspect.Parameter.empty and name not in options]
    if missing:
        raise Refused(
            "bad-option",
            f"{place.shown} needs {', '.join(missing)}",
            where=f"model {place.shown}{signature}",
            why="the function is called with the options of --set, and these have no default",
            next=" ".join(f"--set {name}=VALUE" for name in missing),
        )


def _failed(place: Place, error: BaseException, doing: str, options: Mapping[str, Any]) -> Refused:
    chain, seen = [error], {id(error)}
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and id(cause) not in seen:
        chain.append(cause)
        seen.add(id(cause))
    said = f"{doing} {{}} {type(error).__name__}{_first_line(error)}"
    if any(type(part).__name__ in NETWORK for part in chain):
        return Refused(
            "needs-network",
            said.format("asked for the network:"),
            where=f"MODEL {place.shown}{_line(error, place)}",
            why="an export depends on files that are here, so that it gives the same tomorrow",
            next="fetch the weights beforehand and give them with --checkpoint, or load them from a file",
        )
    traceback.print_exception(error)  # whole, to the log
    return Refused(
        "factory-failed",
        said.format("raised"),
        where=f"MODEL {place.shown}{_line(error, place)}",
        why="the function is called as it is, with the options of --set",
        next=_by_hand(place, options),
    )


def _first_line(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # a stranger's error may fail to say what it is
        return ""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return f": {first[:LONGEST]}{'...' if len(first) > LONGEST else ''}" if first else ""


def _by_hand(place: Place, options: Mapping[str, Any]) -> str:
    """The command that calls the function outside of an export, wherever one is."""
    given = ", ".join(f"{name}={value!r}" for name, value in options.items())
    if place.kind != "file":
        return f"python -c {_quoted(f'import {place.place} as m; m.{place.name}({given})')}"
    path = Path(place.place)
    code = f"import runpy; runpy.run_path({str(path)!r})[{place.name!r}]({given})"
    return f"PYTHONPATH={shlex.quote(str(path.parent))} python -c {_quoted(code)}"


def _quoted(code: str) -> str:
    """Python as a word of the shell, in the quotes that it does not use itself."""
    return shlex.quote(code) if set(code) & set('"$`\\!') else f'"{code}"'


def _line(error: BaseException, place: Place) -> str:
    """The innermost line of the file that was named, else of any code that is neither ours nor a library's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f", {Path(error.filename).name}:{error.lineno}: {(error.text or '').strip()}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    own = [frame for frame in frames if Path(frame.filename) == Path(place.place)] or [
        frame for frame in frames if "site-packages" not in frame.filename and not frame.filename.startswith(OURS)
    ]
    return f", {Path(own[-1].filename).name}:{own[-1].lineno}: {own[-1].line}" if own else ""
