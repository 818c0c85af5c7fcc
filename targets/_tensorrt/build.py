"""Builds an engine: Polygraphy's loaders where they do what they say on 10.3 to 11.4, TensorRT itself where not.

Polygraphy's own switches for precision are left alone (11.x has none of the flags behind them), and so is its timing
cache: it drops one that does not fit without a word.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.errors import NotProven, Refused, StageFailed
from exporter.folders import cache as cache_folder
from exporter.folders import write_whole
from exporter.target import Progress

from .cuda import Device
from .recipe import Recipe

# What TensorRT calls the types that arithmetic runs in (trt.DataType).
TYPES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16"}
LOG_LINES = 20  # of errors that are quoted


@dataclass(frozen=True)
class Built:
    """A new engine.

    Attributes:
        plan: the serialised engine.
        log: what the builder said.
        advice: what its user should know of the build.
        types: the type of each graph node's first output in the network that was built, as TensorRT itself had it.
    """

    plan: bytes
    log: str
    advice: tuple[str, ...]
    types: Mapping[str, str]


def build(graph: Path, recipe: Recipe, device: Device, progress: Progress) -> Built:
    """Builds an engine from a graph.

    Args:
        graph: the ONNX file; the parser looks for its data beside it.
        recipe: everything else.
        device: what it is built for, for the timing cache.
        progress: told the builder's phases.

    Raises:
        NotProven: ``unsupported`` when the parser refuses the graph.
        StageFailed: ``stage-failed`` when the builder gives no engine.
    """
    import tensorrt as trt
    from polygraphy.backend.trt import EngineBytesFromNetwork, NetworkFromOnnxPath
    from polygraphy.exception import PolygraphyException

    cache = TimingCache(cache_path(device, trt.__version__) if recipe.settings["timing-cache"] else None)
    with captured_log() as log:
        try:
            built = NetworkFromOnnxPath(str(graph), strongly_typed=True)()
        except PolygraphyException as error:
            raise _unparsed(log, error) from error
        network = built[1]
        types = network_types(network)
        configured = Configured(recipe, cache, monitor(progress))
        try:
            plan = bytes(memoryview(EngineBytesFromNetwork(built, configured)()))
        except PolygraphyException as error:
            raise _unbuilt(log, error) from error
        cache.keep(configured.config)
    return Built(plan, log.text(), tuple(cache.said), types)


class Configured:
    """Makes the builder's configuration when it is asked for, as Polygraphy's loaders do, and remembers it."""

    def __init__(self, recipe: Recipe, cache: TimingCache, progress_monitor: Any) -> None:
        self._recipe, self._cache, self._monitor = recipe, cache, progress_monitor
        self.config: Any = None

    def __call__(self, builder: Any, network: Any) -> Any:
        """The configuration for a network."""
        from polygraphy.backend.trt import CreateConfig

        self.config = CreateConfig(**config_arguments(self._recipe), progress_monitor=self._monitor)(builder, network)
        self._cache.attach(self.config)
        return self.config


def config_arguments(recipe: Recipe) -> dict[str, Any]:
    """The recipe in the words of Polygraphy's ``CreateConfig``; TF32 is off unless it is the precision asked for."""
    import tensorrt as trt
    from polygraphy.backend.trt import Profile

    profile, settings = Profile(), recipe.settings
    for name, sizes in recipe.profiles.items():
        profile.add(name, *(tuple(sizes[which]) for which in ("min", "opt", "max")))
    workspace = {trt.MemoryPoolType.WORKSPACE: settings["workspace"]} if settings["workspace"] else None
    return {
        "profiles": [profile],
        "tf32": recipe.precision == "tf32",
        "memory_pool_limits": workspace,
        "builder_optimization_level": settings["optimisation-level"],
        "version_compatible": settings["version-compatible"],
        "hardware_compatibility_level": _level(settings["hardware-compatible"]),
        "refittable": settings["refit"] or settings["strip-plan"],
        "strip_plan": settings["strip-plan"],
        "weight_streaming": settings["weight-streaming"],
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,  # what ran is read back from it
    }


def _level(wanted: str) -> Any:
    """What TensorRT calls a level of hardware compatibility.

    Raises:
        Refused: ``bad-option`` where this version has none such: an engine without it would not be what was asked for.
    """
    import tensorrt as trt

    if wanted == "none":
        return None
    name = wanted.replace("-", "_").upper()
    if not hasattr(trt.HardwareCompatibilityLevel, name):
        raise Refused(
            "bad-option",
            f"--option hardware-compatible={wanted}: TensorRT {trt.__version__} has no such level",
            where="target tensorrt",
            why="an engine built without it would open on this kind of GPU alone",
            next="--option hardware-compatible=ampere-plus, or a newer TensorRT",
        )
    return getattr(trt.HardwareCompatibilityLevel, name)


def network_types(network: Any) -> dict[str, str]:
    """The type of each graph node in a parsed network: what a strongly typed build must compute it in."""
    found: dict[str, str] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        kinds = [output.dtype.name for output in outputs if output is not None]
        kind = next((TYPES[kind] for kind in kinds if kind in TYPES), None)
        if kind:
            found |= dict.fromkeys(nodes_of(layer.metadata) or [layer.name], kind)
    return found


def nodes_of(metadata: str) -> list[str]:
    """The graph nodes that TensorRT notes on a layer: ``[ONNX Layer: /conv1/Conv]``, several when it is fused."""
    mark = "[ONNX Layer: "
    return [part.partition("]")[0] for part in metadata.split(mark)[1:]]


# ------------------------------------------------------------------------------------------------ timing cache


class TimingCache:
    """The builder's timings of kernels on one kind of GPU, kept per user; what does not fit is discarded aloud."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.said: list[str] = []

    def attach(self, config: Any) -> None:
        """Gives the builder what there is; a file that is damaged, or not of this device and version, is removed."""
        if self._path is None:
            return
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            self.said.append(f"the timing cache {self._path.name} cannot be read ({error}): kernels are timed anew")
            return
        data = _intact(content)
        cache = config.create_timing_cache(data) if data is not None else None
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            why = "it is damaged" if data is None else "TensorRT says that it is of another device or version"
            self.said.append(f"discarded the timing cache {self._path.name}: {why}; kernels are timed anew")
            with suppress(OSError):
                self._path.unlink()
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)

    def keep(self, config: Any) -> None:
        """Writes what the builder knows now, in one step; where that cannot be, the next build times kernels anew."""
        cache = config.get_timing_cache()
        if self._path is None or cache is None:
            return
        data = bytes(memoryview(cache.serialize()))
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(self._path, hashlib.sha256(data).digest() + data)
        except OSError as error:
            self.said.append(f"the timing cache {self._path.name} could not be kept ({error})")


def cache_path(device: Device, version: str) -> Path:
    """Where the timings of a device and a version lie: in the user's cache folder."""
    words = f"{device.name} {device.capability} {version}"
    name = "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in words)
    return cache_folder() / "tensorrt" / f"{name}.timings"


def _intact(content: bytes) -> bytes | None:
    """What a file holds behind its own digest, or None where the two do not agree."""
    digest, data = content[:32], content[32:]
    return data if hashlib.sha256(data).digest() == digest else None


# ---------------------------------------------------------------------------------------------------- progress


@dataclass
class Phases:
    """The phases the builder is in, outermost first, and how far each is."""

    steps: dict[str, tuple[int, int]] = field(default_factory=dict)

    def line(self) -> tuple[str, int, int]:
        """What to show: the names from the outside in, and how far the outermost is."""
        if not self.steps:
            return "building", 0, 0
        done, of = next(iter(self.steps.values()))
        return "building: " + ", ".join(self.steps), done, of


def monitor(progress: Progress) -> Any:
    """TensorRT's progress monitor, telling ``progress``."""
    import tensorrt as trt

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # made here: its base is the runtime's own
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phases = Phases()

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            self._phases.steps[phase_name] = (0, num_steps)
            progress(*self._phases.line())

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._phases.steps[phase_name] = (step + 1, self._phases.steps.get(phase_name, (0, step + 1))[1])
            progress(*self._phases.line())
            return True  # go on; a child that is to end is killed

        def phase_finish(self, phase_name: str) -> None:
            self._phases.steps.pop(phase_name, None)

    return Monitor()


# --------------------------------------------------------------------------------------------------------- log


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self._lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append((record.levelno, record.getMessage()))

    def text(self) -> str:
        """All of it."""
        return "".join(f"{line}\n" for _, line in self._lines)

    def errors(self) -> list[str]:
        """The last errors."""
        return [line for level, line in self._lines if level >= logging.ERROR][-LOG_LINES:]


@contextmanager
def captured_log() -> Iterator[Lines]:
    """What TensorRT and Polygraphy say meanwhile."""
    from polygraphy.logger import G_LOGGER

    lines, logger = Lines(), logging.getLogger("Polygraphy")
    G_LOGGER.use_python_logging_system, G_LOGGER.colors = True, False
    level = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.DEBUG)
    try:
        with G_LOGGER.verbosity(G_LOGGER.VERBOSE):
            yield lines
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)


def _unparsed(log: Lines, error: Exception) -> NotProven:
    said = "; ".join(log.errors()) or str(error)
    return NotProven(
        "unsupported",
        f"TensorRT's parser refuses the graph: {said}",
        where="target tensorrt",
        why="the table of facts that the graph was checked with does not know it",
        next="report the operator that it names, or choose another target: exporter targets",
    )


def _unbuilt(log: Lines, error: Exception) -> StageFailed:
    said = "; ".join(log.errors()) or str(error)
    return StageFailed(
        "stage-failed",
        f"TensorRT built no engine: {said}",
        where="target tensorrt",
        why="the builder found no way to run the graph on this GPU within its memory",
        next="--option workspace=4G, or a smaller --dim NAME=MIN:OPT:MAX",
    )


def write_facts(path: Path, types: Mapping[str, str], facts: Mapping[str, Any]) -> None:
    """Notes how an engine was built, for whoever opens it."""
    path.write_text(json.dumps({"types": dict(types), **facts}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
