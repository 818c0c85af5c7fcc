"""TensorRT on NVIDIA GPUs: prepared on any machine, compiled where the GPU is, strongly typed on 10.3 to 11.4.

A precision is written into the types of the graph, since 11.x has no builder flags for it and earlier ones were
permissions that the builder could ignore; what ran is read back from the engine's inspector, layer by layer. An engine
holds machine code: only one that this user's machine built is opened (:mod:`exporter.preflight`).

The parts are in ``targets/_tensorrt/``: what the parser cannot do (``facts``), the build recipe (``recipe``), building
(``build``), an open engine (``engine``) and what it says of itself (``inspector``), the GPU (``cuda``, ``clocks``).
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.graph import Graph
from exporter.target import (
    BF16_OPSET,
    HINT,
    LOAD,
    QDQ,
    REBUILD,
    TYPES,
    Artifact,
    Availability,
    Layer,
    Options,
    Preflight,
    Problem,
    Progress,
    Ran,
    Target,
    silent,
)
from exporter.target_options import completed

from ._tensorrt import clocks, cuda, facts
from ._tensorrt.probe import probe
from ._tensorrt.recipe import SETTINGS, Recipe, profile_of, recipe_of, trtexec

if TYPE_CHECKING:
    import numpy as np
    from polygraphy.backend.base import BaseRunner

    from ._tensorrt.engine import TensorRTRunner

OLDEST = (10, 3)
COMPATIBLE_SINCE = (10, 0)  # NVIDIA: version-compatible plans of 10 load on 11, those of 8 do not
AMPERE = (8, 0)
# Said of a version as a whole: no node shows it beforehand, and parity decides.
NOTES = {
    (11, 1): "11.1 built fp32 engines of DETR-like models that were silently wrong (NVIDIA/TensorRT#4813)",
    (10, 14): "10.14 built fp32 engines of DETR-like models that were silently wrong (NVIDIA/TensorRT#4813)",
}


class TensorRT(Target):
    """``exporter tensorrt MODEL``."""

    name = "tensorrt"
    extra = "tensorrt"
    precisions = {"fp32": ("fp32", "fp32"), "tf32": ("fp32", "tf32"), "fp16": ("fp16", "fp16"),
                  "bf16": ("bf16", "bf16"), "int8": ("int8", "int8")}  # fmt: skip
    lowers = {"tf32": (HINT,), "fp16": (TYPES,), "bf16": (TYPES,), "int8": (QDQ,)}
    rung = "compiled"
    device = "cuda"
    settings = SETTINGS
    prepares = True
    guarded = frozenset({"engine"})
    opset = facts.OPSET
    python_example = """\
import numpy as np, tensorrt as trt
from polygraphy.backend.trt import TrtRunner
runtime = trt.Runtime(trt.Logger())
with TrtRunner(runtime.deserialize_cuda_engine(open("{file}", "rb").read())) as runner:
    outputs = runner.infer({inputs})
    result = outputs["{output}"]
"""
    cpp_example = """\
#include <NvInfer.h>
auto runtime = nvinfer1::createInferRuntime(logger);
auto engine = runtime->deserializeCudaEngine(plan.data(), plan.size());  // the bytes of {file}
auto context = engine->createExecutionContext();
context->setInputShape("{input}", dims);                // {shape}; and every other input
context->setTensorAddress("{input}", deviceInput);
context->setTensorAddress("{output}", deviceOutput);
context->enqueueV3(stream);
"""

    def available(self) -> Availability:
        if find_spec("tensorrt") is None:
            return Availability(False, reason="tensorrt is not installed", next="pip install 'tensorrt>=10.3'")
        found = probe()
        if found.version is None:  # its bindings may be there without its libraries, or against others
            return Availability(False, reason=found.reason, next="pip install --force-reinstall 'tensorrt>=10.3'")
        if _numbers(found.version) < OLDEST:
            said = f"tensorrt {found.version} is older than 10.3"
            return Availability(False, found.version, said, "pip install 'tensorrt>=10.3'")
        if not found.devices:
            return Availability(False, found.version, "there is no NVIDIA GPU here, or its driver does not start")
        return Availability(True, found.version)

    def opset_of(self, precision: str, way: str) -> int | None:
        return BF16_OPSET if precision == "bf16" else self.opset

    def lacks(self, precision: str, device: int) -> Problem | None:
        if not self.available().present:
            return None
        cuda.refuse_absent(device, probe().devices)
        found = probe().devices[device]
        if precision != "bf16" or _numbers(found.capability) >= AMPERE:
            return None
        reason = f"bf16 came with compute capability 8.0, and {found.name} has {found.capability}"
        return Problem(f"GPU {device}", reason, "--precision fp16")

    def problems(self, graph: Graph, options: Options) -> list[Problem]:
        wanted = _checked_for(completed(self, options.extra))
        if find_spec("onnx") is not None:
            return [*_option_problems(options, wanted), *facts.problems(graph.linked(), wanted)]
        known = recipe_of(self, graph, options).problems[facts.column(wanted)]
        return [*_option_problems(options, wanted), *(Problem(**problem) for problem in known)]

    def prepare(self, graph: Graph, options: Options, folder: Path) -> dict[str, Path]:
        path = folder / "recipe.json"
        recipe_of(self, graph, options).write(path)
        return {"recipe": path}

    def by_hand(self, graph: str, options: Options) -> str:
        recipe = Recipe(options.precision, completed(self, options.extra), profile_of(options), {})
        return trtexec(recipe, graph)

    def compile(self, graph: Graph, options: Options, folder: Path, progress: Progress = silent) -> Artifact:
        from ._tensorrt.build import build, write_facts

        files = {"recipe": folder / "recipe.json", "engine": folder / "model.engine", "built": folder / "built.json",
                 "log": folder / "build.log"}  # fmt: skip
        recipe = recipe_of(self, graph, options)
        recipe.write(files["recipe"])
        device, found = cuda.use(options.device), version()
        made = build(graph.path, recipe, device, progress)
        files["engine"].write_bytes(made.plan)
        files["log"].write_text(made.log, encoding="utf-8")
        fingerprint = _fingerprint(device, found, recipe)
        write_facts(files["built"], made.types, {"fingerprint": fingerprint})
        if recipe.settings["strip-plan"]:  # its weights are put back from the graph
            kept = graph.copied(folder / "model.onnx")
            files |= {"graph": kept.path} | {role: path for role, path in kept.roles.items() if role == "data"}
        notes = [NOTES[_numbers(found)]] if _numbers(found) in NOTES else []
        advice = (*made.advice, *notes)
        stored = self.precisions[options.precision][0]
        return Artifact(options.precision, files, ("engine",), fingerprint, stored, advice)

    def preflight(self, artifact: Artifact, options: Options) -> Preflight:
        found = probe()
        return fits(artifact.fingerprint, found.devices, options.device, found.version or "none")

    def open(self, artifact: Artifact, options: Options, form: str | None = None) -> BaseRunner:
        from ._tensorrt.engine import TensorRTRunner

        return TensorRTRunner({**artifact.files, "engine": artifact.files[form or "engine"]}, options)

    def ran(self, runner: BaseRunner) -> Ran:
        return _ours(runner).ran()

    def timer(self, runner: BaseRunner, feeds: Mapping[str, np.ndarray]) -> Callable[[], Any]:
        return _ours(runner).bound(feeds)

    def layers(self, runner: BaseRunner, feeds: Mapping[str, np.ndarray], runs: int) -> list[Layer]:
        return _ours(runner).layers(feeds, runs)

    def conditions(self, device: int) -> dict[str, Any]:
        found = probe().devices if find_spec("tensorrt") is not None else ()
        return clocks.conditions(found[device].uuid) if device < len(found) else {}


def _ours(runner: BaseRunner) -> TensorRTRunner:
    from ._tensorrt.engine import TensorRTRunner

    assert isinstance(runner, TensorRTRunner)
    return runner


def version() -> str:
    """The version of TensorRT that is installed here; only where it may be imported, in a child."""
    import tensorrt as trt

    return str(trt.__version__)


def fits(fingerprint: Mapping[str, str], found: tuple[cuda.Device, ...], index: int, here: str) -> Preflight:
    """Whether an engine fits this machine: load it, or build it again.

    Args:
        fingerprint: what the engine was built with.
        found: the GPUs here.
        index: which of them is asked for.
        here: the version of TensorRT here.
    """
    if index >= len(found):
        return Preflight(REBUILD, f"there is no GPU {index} here, of {len(found)}")
    device, compatible = found[index], fingerprint.get("compatible", "").split("+")
    built = fingerprint.get("tensorrt", "")
    if fingerprint.get("platform") != _platform():
        return Preflight(REBUILD, f"it was built on {fingerprint.get('platform')}, this is {_platform()}")
    if built != here and not ("version" in compatible and _opens(built, here)):
        return Preflight(REBUILD, f"it was built by TensorRT {built}, here is {here}")
    if not _same_gpu(fingerprint, device, compatible):
        was = f"{fingerprint.get('gpu')} ({fingerprint.get('capability')})"
        return Preflight(REBUILD, f"it was built for {was}, here is {device.name} ({device.capability})")
    if _numbers(device.driver) < _numbers(fingerprint.get("driver", "")):
        return Preflight(REBUILD, f"the driver is {device.driver}, older than {fingerprint.get('driver')} of the build")
    moved = {"tensorrt": (built, here), "driver": (fingerprint.get("driver"), device.driver)}
    said = [f"{what} {was}, opened with {now}" for what, (was, now) in moved.items() if was != now]
    return Preflight(LOAD, f"built with {' and '.join(said)}" if said else "")


def _opens(built: str, here: str) -> bool:
    """Whether a version opens a version-compatible engine of another."""
    return COMPATIBLE_SINCE <= _numbers(built) <= _numbers(here)


def _same_gpu(fingerprint: Mapping[str, str], device: cuda.Device, compatible: list[str]) -> bool:
    if "ampere-plus" in compatible:
        return _numbers(device.capability) >= AMPERE
    same_kind = fingerprint.get("capability") == device.capability
    return same_kind and (fingerprint.get("gpu") == device.name or "same-compute-capability" in compatible)


def _fingerprint(device: cuda.Device, found: str, recipe: Recipe) -> dict[str, str]:
    settings = recipe.settings
    flags = ["version"] if settings["version-compatible"] else []
    flags += [settings["hardware-compatible"]] if settings["hardware-compatible"] != "none" else []
    return {
        "tensorrt": found, "gpu": device.name, "capability": device.capability, "driver": device.driver,
        "cuda": device.cuda, "platform": _platform(), "compatible": "+".join(flags) or "none",
    }  # fmt: skip


def _platform() -> str:
    return f"{platform.system()}-{platform.machine()}".lower()


def _checked_for(settings: Mapping[str, Any]) -> tuple[int, int]:
    """The version to check a graph for: the one that is installed, else the one that is asked for."""
    found = probe().version if find_spec("tensorrt") is not None else None
    usable = found is not None and _numbers(found) >= OLDEST
    return _numbers(found) if found is not None and usable else facts.VERSIONS[settings["version"]]


def _option_problems(options: Options, version: tuple[int, int]) -> list[Problem]:
    """Options that a version does not have, as far as its bindings were looked at."""
    wanted = options.extra.get("hardware-compatible")
    if wanted != "same-compute-capability" or version >= facts.VERSIONS["10.16"]:
        return []
    named = ".".join(map(str, version))
    return [Problem(f"--option hardware-compatible={wanted}", f"TensorRT {named} is not known to have that level",
                    "ampere-plus, or TensorRT 10.16 and later")]  # fmt: skip


def _numbers(text: str) -> tuple[int, int]:
    """The first two numbers of a version."""
    parts = [int(part) if part.isdigit() else 0 for part in text.split(".")[:2]]
    first, second = (*parts, 0, 0)[:2]
    return first, second
