"""Stages: each runs in a child, under limits, and its cost is kept."""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from exporter.errors import Incomplete, StageFailed
from exporter.isolate import Limits, Outcome, call
from exporter.samples import slug

Progress = Callable[[str, Mapping[str, Any]], None]

STAGE_SECONDS = 1800.0
# What a traced graph and its references depend on besides code, weights and options.
TOOLS = ("torch", "onnx", "onnxscript", "onnx-ir", "onnxsim", "numpy", "timm", "scikit-image")


def silent(stage: str, event: Mapping[str, Any]) -> None:
    """A progress that nobody watches."""


@dataclass(frozen=True)
class Stage:
    """How long one stage took and how much memory its child used."""

    stage: str
    seconds: float
    peak_rss_mb: float
    cached: bool = False

    def as_json(self) -> dict[str, Any]:
        """The stage as ``--json`` prints it."""
        return self.__dict__ | {"seconds": round(self.seconds, 3), "peak_rss_mb": round(self.peak_rss_mb, 1)}


@dataclass
class Stages:
    """Runs stages in children and keeps their costs."""

    folder: Path
    limits: Limits
    progress: Progress
    done: list[Stage] = field(default_factory=list)

    def attempt(self, stage: str, function: str, request: Mapping[str, Any]) -> Outcome:
        """Runs one stage; whatever happens to its child is in the outcome."""
        self.progress(stage, {})
        outcome = call(
            function,
            request,
            limits=self.limits,
            log=self.folder / f"{slug(stage)}.log",
            stage=stage,
            on_event=lambda event: self.progress(stage, event),
        )
        self.done.append(Stage(stage, outcome.seconds, outcome.peak_rss_bytes / 2**20))
        if isinstance(outcome.error, StageFailed) and outcome.log.is_file():
            outcome.error.where = f"log {_kept(outcome.log)}"  # the folder it lies in goes when the command ends
        elif outcome.error is not None and _holds_trace(outcome.log):
            outcome.error.where += f"; the whole of it: {_kept(outcome.log)}"
        return outcome

    def run(self, stage: str, function: str, request: Mapping[str, Any]) -> Any:
        """Runs one stage that nothing goes on without."""
        return self.attempt(stage, function, request).require()

    def reused(self, *stages: str) -> None:
        """Records stages whose products were already there."""
        self.done += [Stage(stage, 0.0, 0.0, cached=True) for stage in stages]


def _holds_trace(log: Path) -> bool:
    """Whether there is more to read in a log than the error says."""
    return log.is_file() and b"Traceback (most recent call last)" in log.read_bytes()


def _kept(log: Path) -> Path:
    """A copy of a log that outlives the command."""
    with tempfile.NamedTemporaryFile("wb", prefix=f"exporter-{log.stem}-", suffix=".log", delete=False) as copy:
        copy.write(log.read_bytes())
    return Path(copy.name)


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder, for stages that publish nothing."""
    with tempfile.TemporaryDirectory(prefix="exporter-") as folder:
        yield Path(folder)


def require_torch(work: str) -> None:
    """Raises where PyTorch is not installed, before a child fails for want of it.

    Raises:
        Incomplete: ``runtime-absent``, with what to install.
    """
    if find_spec("torch") is None:
        raise Incomplete(
            "runtime-absent",
            f"{work} needs torch, which is not installed",
            where=f"python {sys.executable}",
            why="a model is built and traced by PyTorch; verify, profile, compile and run need none",
            next="pip install '.[trace]' in a checkout, or do it where it is, and copy the bundle",
        )


def tool_versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of the distributions that are installed here."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
