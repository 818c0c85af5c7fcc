"""OpenVINO on CPU: an IR pair ``.xml`` and ``.bin``, run in the precision that was asked for and no other.

Format: https://docs.openvino.ai/2026/documentation/openvino-ir-format.html. Left to its defaults the CPU plugin runs
bf16 where the processor has it, and ``save_model`` stores f16; both are told not to here, and what ran is read back
from the compiled model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from polygraphy.backend.base import BaseRunner

from exporter.graph import Graph
from exporter.target import (
    BF16_OPSET,
    HINT,
    MIXED,
    OWN_SCALES,
    QUANTISED,
    TYPES,
    Artifact,
    Availability,
    Layer,
    Options,
    Problem,
    Progress,
    Ran,
    Target,
    silent,
)

from ._openvino.model import input_name, read
from ._openvino.quantise import not_quantised, quantised
from ._openvino.runner import FLOATS, HINTS, OpenVINORunner, hint
from ._processor import SEVEN_BITS, saturates


class OpenVINO(Target):
    """``exporter openvino MODEL``."""

    name = "openvino"
    extra = "openvino"
    precisions = {"fp32": ("fp32", "fp32"), "bf16": ("bf16", "bf16"), "fp16": ("fp16", "fp16"),
                  "int8": ("int8", "int8")}  # fmt: skip
    lowers = {"bf16": (HINT, TYPES), "fp16": (HINT,), "int8": (QUANTISED, MIXED)}
    rung = "compiled"
    beside = ("bin",)
    python_example = """\
import numpy as np, openvino as ov
model = ov.Core().compile_model("{file}", "CPU", {{"INFERENCE_PRECISION_HINT": "{hint}"}})
outputs = model({inputs})
result = outputs["{output}"]
"""
    cpp_example = """\
#include <openvino/openvino.hpp>
ov::Core core;
auto model = core.compile_model("{file}", "CPU", ov::hint::inference_precision(ov::element::{hint}));
auto request = model.create_infer_request();
request.set_tensor("{input}", ov::Tensor(ov::element::f32, {{{shape}}}, data));  // and every other input
request.infer();
const float* result = request.get_tensor("{output}").data<float>();
"""

    def ways(self, precision: str) -> tuple[str, ...]:
        able = not self.available().present or "BF16" in _capabilities()
        return tuple(way for way in super().ways(precision) if able or way != MIXED)

    def rest(self, precision: str, way: str) -> frozenset[str]:
        return frozenset({"fp32", "bf16"}) if way == MIXED else super().rest(precision, way)

    def opset_of(self, precision: str, way: str) -> int | None:
        return BF16_OPSET if (precision, way) == ("bf16", TYPES) else self.opset

    def example_fields(self, precision: str, way: str) -> dict[str, str]:
        return {"hint": hint(precision, way)}

    def available(self) -> Availability:
        try:
            return Availability(True, version("openvino"))
        except PackageNotFoundError:
            return Availability(False, reason="openvino is not installed", next="pip install openvino")

    def lacks(self, precision: str, device: int) -> Problem | None:
        if precision == "int8":
            missing = find_spec("nncf") is None
            return Problem("nncf", "NNCF, which quantises, is not installed", "pip install nncf") if missing else None
        if precision not in HINTS or precision == "fp32" or not self.available().present:
            return None
        able = _capabilities()
        if precision.upper() in able:
            return None
        others = [name for name in ("bf16", "fp16") if name.upper() in able]
        reason = f"OpenVINO says that this processor computes in {', '.join(able)}"
        return Problem("CPU", reason, f"--precision {(others or ['fp32'])[0]}")

    def problems(self, graph: Graph, options: Options) -> list[Problem]:
        from openvino.frontend import FrontEndManager

        frontend = FrontEndManager().load_by_framework("onnx")
        partial = frontend.convert_partially(frontend.load(str(graph.path)))
        # What the ONNX frontend cannot convert stays in the model as a framework node.
        unknown = [op for op in partial.get_ordered_ops() if "Framework" in op.get_type_name()]
        remedy = "write it with operators of https://docs.openvino.ai, or run this model on another target"
        return [Problem(op.get_friendly_name(), "OpenVINO has no such ONNX operator", remedy) for op in unknown]

    def compile(self, graph: Graph, options: Options, folder: Path, progress: Progress = silent) -> Artifact:
        import openvino as ov

        model, left = read(graph.path), dict[str, str]()
        if options.way in OWN_SCALES:
            progress("taking scales", 0, 0)
            model = quantised(model, options, saturates())
            left = not_quantised(model)
        if options.shapes:
            inputs = {input_name(port) for port in model.inputs}
            model.reshape({name: shape for name, shape in _bounded_shapes(options).items() if name in inputs})
        path = folder / "model.xml"
        ov.save_model(model, str(path), compress_to_fp16=False)
        files = {"xml": path, "bin": path.with_suffix(".bin")}
        stored = options.precision if options.way in {TYPES, *OWN_SCALES} else "fp32"
        advice = (SEVEN_BITS,) if options.way in OWN_SCALES and saturates() else ()
        return Artifact(options.precision, files, ("xml",), {"openvino": version("openvino")}, stored, advice, left)

    def open(self, artifact: Artifact, options: Options, form: str | None = None) -> BaseRunner:
        return OpenVINORunner(artifact.files["xml"], artifact.files["bin"], options)

    def ran(self, runner: BaseRunner) -> Ran:
        assert isinstance(runner, OpenVINORunner)
        types = runner.layer_types()
        known = FLOATS | {"int8": "int8"}
        layers = {known[name]: count for name, count in types.items() if name in known}
        return Ran(
            "+".join(sorted(layers)) or "none", layers, {runner.device: sum(types.values())}, nodes=runner.node_types()
        )

    def timer(self, runner: BaseRunner, feeds: Mapping[str, np.ndarray]) -> Callable[[], Mapping[str, np.ndarray]]:
        assert isinstance(runner, OpenVINORunner)
        return runner.bound(feeds)

    def layers(self, runner: BaseRunner, feeds: Mapping[str, np.ndarray], runs: int) -> list[Layer]:
        assert isinstance(runner, OpenVINORunner)
        return runner.layers(feeds, runs)


def _capabilities() -> list[str]:
    """What this processor computes in, by the plugin's names."""
    import openvino as ov

    return list(ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _bounded_shapes(options: Options) -> dict[str, Any]:
    """Partial shapes with the declared bounds, so that the runtime refuses what was never tested."""
    import openvino as ov

    def bounds(size: int | str) -> Any:
        low, _, high = options.bounds(size)
        return ov.Dimension(low, high)

    return {name: ov.PartialShape([bounds(size) for size in shape]) for name, shape in options.shapes.items()}
