"""What the graph of a user's own model depends on; only children find out, by looking on while it is built and run.

A slope may stand in a file of settings, a width in a variable of the environment, a branch in a module that is imported
in ``forward``. None of it shows in the weights, and nobody says where it comes from.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from exporter.graph import sha256
from exporter.models.call import named_tensors
from exporter.parity.cases import Case, generated_inputs
from exporter.spec import ModelDef

# Files that say what the machine does at the moment, and what Python makes of its sources.
PASSING = ("/proc/", "/sys/", "/dev/")
COMPILED = ".pyc"
OPENS = ("open", "ctypes.dlopen")
OURS = Path(__file__).resolve().parents[1]  # counts by itself, whatever is loaded of it
# Where packages are installed, and Python's own.
PACKAGES, STANDARD = {"site-packages", "dist-packages"}, Path(sysconfig.get_path("stdlib")).resolve()


@dataclass
class Read:
    """What was read while somebody looked on.

    Attributes:
        files: whole paths of files that Python opened to read, and of libraries that it loaded.
        variables: of the environment, by name; None for one that was asked for and is not there.
    """

    files: set[str] = field(default_factory=set)
    variables: dict[str, str | None] = field(default_factory=dict)


@contextmanager
def looking_on() -> Iterator[Read]:
    """Notes what is read until it ends; its hook stays for the life of the process, which is a child's."""
    read, looking = Read(), True
    plain = os._Environ.__getitem__

    def heard(event: str, said: tuple[Any, ...]) -> None:
        if looking and event in OPENS and isinstance(said[0], (str, bytes)):
            writes_only = event == "open" and (said[2] or 0) & os.O_ACCMODE == os.O_WRONLY
            if not writes_only:
                read.files.add(str(Path(os.fsdecode(said[0])).absolute()))

    def asked(environment: os._Environ[Any], name: Any) -> Any:
        found = None
        try:
            found = plain(environment, name)
            return found
        finally:
            read.variables.setdefault(str(name), None if found is None else str(found))

    sys.addaudithook(heard)
    os._Environ.__getitem__ = asked  # type: ignore[method-assign]
    try:
        yield read
    finally:
        looking = False
        os._Environ.__getitem__ = plain  # type: ignore[method-assign]


def sources(files: Iterable[str]) -> tuple[list[Path], list[list[str]]]:
    """Files that are there, in order, and the name and digest of each."""
    found = sorted({path for file in files if (path := _counted(file)) is not None})
    return found, [[path.name, sha256(path)] for path in found]


def sources_of_code(read: Read) -> tuple[list[Path], list[list[str]]]:
    """The files of a user's own code and data, and digests by name of all else that the code was seen to depend on.

    Files of installed packages are one digest: they are many, and nobody edits them while an export runs.
    """
    loaded = {file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    packages = {file for file in {*loaded, *read.files} if _installed(Path(file))}
    installed = _digest(digest for _, digest in sources(packages)[1])
    variables = _digest(f"{name} {value!r}" for name, value in sorted(read.variables.items()))
    files, digests = sources({*loaded, *read.files} - packages)
    return files, [*digests, ["installed", installed], ["environment", variables]]


def answer(definition: ModelDef, module: nn.Module) -> str:
    """Digest of what a module gives at its opt sizes, deployed as well: whatever it depends on that nobody saw it read.

    What does not run here is told where it is traced; until then it counts as what it says.
    """
    given = generated_inputs(definition, Case("answer", "generated", "normal", definition.opt_sizes()))
    tensors = [torch.from_numpy(given[tensor.name]) for tensor in definition.inputs]
    repeats = {name: int(given[name]) for name in definition.repeats}
    said = [_said(module.eval(), tensors, repeats)]
    if definition.deploy is not None or definition.parts:
        try:
            deployed = definition.deploy(module) if definition.deploy is not None else module
            pieces = [part.module(deployed) for part in definition.parts]
            said += [] if pieces else [_said(deployed.eval(), tensors, repeats)]
        except Exception as error:
            said.append(repr(error))
    return _digest(said)


def _said(module: nn.Module, tensors: Iterable[torch.Tensor], repeats: Mapping[str, int]) -> str:
    try:
        with torch.no_grad():
            found = named_tensors(module(*(tensor.clone() for tensor in tensors), **repeats))
    except Exception as error:
        return repr(error)
    return _digest(f"{name} {value.dtype} {tuple(value.shape)} {_bytes_digest(value)}" for name, value in found)


def _bytes_digest(value: torch.Tensor) -> str:
    held = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return hashlib.sha256(held.view(torch.uint8).numpy().data).hexdigest()


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode(errors="surrogateescape")).hexdigest()


def _counted(file: str) -> Path | None:
    """The file, if it is one that is still there: a temporary file that is gone held what the code itself wrote."""
    if not Path(file).is_absolute() or file.startswith(PASSING) or file.endswith(COMPILED):
        return None
    with suppress(OSError, ValueError):
        path = Path(file).resolve()
        counts = stat.S_ISREG(path.stat().st_mode) and os.access(path, os.R_OK) and not path.is_relative_to(OURS)
        return path if counts else None
    return None


def _installed(path: Path) -> bool:
    """Whether it belongs to an installed package or to Python itself."""
    return bool(PACKAGES & set(path.parts)) or path.is_relative_to(STANDARD)
