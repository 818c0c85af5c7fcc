"""What a graph, its references and its measurements depend on, as digests."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import platform
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np

from exporter import registry
from exporter.graph import sha256
from exporter.latency.environment import usable_cores
from exporter.models import Found
from exporter.spec import ModelDef
from exporter.stages import TOOLS, tool_versions

OURS = Path(__file__).resolve().parents[1]
# Variables by which the libraries below choose kernels and threads: the last bits of a sum depend on both. One of ours
# decides in how many files a graph is written.
ARITHMETIC = (
    "ATEN_", "BLIS_", "DNNL_", "EXPORTER_EXTERNAL_FROM", "GOMP_", "KMP_", "MKL_", "NPY_", "OMP_", "ONEDNN_",
    "OPENBLAS_", "ORT_", "PYTORCH_", "TORCH",
)  # fmt: skip


def graph_key(found: Found, samples: Sequence[Path], own: str) -> str:
    """The key of a bundle: digest of everything that a graph and its references depend on, wherever they are made.

    Args:
        found: the model, and what was asked for.
        samples: the user's own samples.
        own: what :func:`own_samples` says.
    """
    request = found.request
    parts: dict[str, Any] = {
        "build": request.build | {"checkpoint": sha256(request.checkpoint) if request.checkpoint else None},
        "dims": [str(dim) for dim in found.definition.dims],
        "samples": _digests(path for place in samples for path in _within(place)),
        **_made_by(found, own),
    }
    return digest_of(parts)


def surroundings(found: Found, own: str) -> dict[str, Any]:
    """What a stage's product depends on beside its request, to the byte: code, tools, the runtime, this machine."""
    return {**_made_by(found, own), "runtime": _runtime(), "machine": _machine()}


def own_samples(definition: ModelDef) -> str:
    """Digest of the definition's own real inputs, which are at hand on one day and not on another."""
    digest = hashlib.sha256()
    try:
        for sample in definition.samples() if definition.samples is not None else ():
            for group in (sample.values, sample.truth):
                for name, value in sorted(group.items()):
                    array = np.ascontiguousarray(value)
                    digest.update(f"{sample.name} {name} {array.dtype} {np.shape(value)}\n".encode())
                    digest.update(array.tobytes())
    except Exception:  # a definition is a stranger's code; what it does wrong is told where its samples are read
        return secrets.token_hex()
    return digest.hexdigest()


def digest_of(parts: Any) -> str:
    """Hex SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _made_by(found: Found, own: str) -> dict[str, Any]:
    return {
        # As it was found, and as it is now.
        "sources": [found.sources, _if_touched(found.files) if found.request.own else _digests(found.files)],
        "packages": _packages() if found.request.own else None,
        "own samples": own,
        "ours": _digests(sorted(OURS.rglob("*.py"))),
        "tools": tool_versions(TOOLS),
    }


def _packages() -> list[Any]:
    """What a user's own code may import that is no file of theirs: every installed package, the definitions here."""
    versions = sorted({f"{package.name} {package.version}" for package in distributions()})
    return [versions, _digests(sorted((registry.ROOT / "model_defs").rglob("*.py")))]


def _digests(paths: Iterable[Path]) -> list[tuple[str, str]]:
    """Names and digests in order; names may be equal, of files in different folders."""
    return [(path.name, sha256(path)) for path in paths]


def _if_touched(paths: Iterable[Path]) -> list[tuple[str, str]]:
    """The same of files that may be gigabytes of weights: one is read again only where somebody touched it."""
    try:
        found = [(path, path.stat()) for path in paths]
    except OSError:
        return [("gone", secrets.token_hex())]  # what cannot be told is never the same
    return [(path.name, _digest(path, (s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns))) for path, s in found]


@cache
def _digest(path: Path, _touched: tuple[int, ...]) -> str:
    return sha256(path)


def _within(place: Path) -> list[Path]:
    """A sample's files: itself, or the pictures of a folder that is one sample."""
    return sorted(path for path in place.iterdir() if path.is_file()) if place.is_dir() else [place]


def _runtime() -> Mapping[str, Any] | None:
    """The target that runs plain graphs here, with its code: it measures them, and guards simplify's passes."""
    runners = registry.graph_runners()
    if not runners:
        return None
    runner = runners[0]
    sources = {Path(inspect.getfile(type(runner))), *(registry.ROOT / "targets").rglob("*.py")}
    return {"name": runner.name, "version": runner.available().version, "sources": _digests(sorted(sources))}


def _machine() -> dict[str, Any]:
    """What the last bits of a float depend on here: the processor's instructions, threads, settings of libraries."""
    settings = {name: value for name, value in os.environ.items() if name.startswith(ARITHMETIC)}
    return {
        "system": f"{platform.system()} {platform.machine()} {platform.libc_ver()}",
        "processor": sorted(set(_processor())),
        "cores": usable_cores(),
        "settings": settings,
    }


def _processor() -> Iterator[str]:
    """The lines of ``/proc/cpuinfo`` that name the processor and what it can do, not what it does at the moment."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name = line.partition(":")[0].strip().lower()
            if name in {"model name", "cpu family", "model", "flags", "features", "cpu implementer", "cpu part"}:
                yield line
