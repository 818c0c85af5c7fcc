"""Ways to quantise for OpenVINO, on the backbones of the quality model: which of them the target takes, and why."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import random
import statistics
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from exporter.bundle import Bundle
from exporter.latency.clock import Monotonic, time_each
from tests.bench.figure import EXPORTER, Figure

BACKBONES = ("extractor-vit", "extractor-convnext", "extractor-efficientnet")
PRODUCTS = {"Convolution", "ConvolutionBackpropData", "GroupConvolution", "GroupConvolutionBackpropData", "MatMul"}


class Asked(NamedTuple):
    """What NNCF is asked for."""

    smooth: bool
    preset: str
    products: bool
    least_and_largest: bool


# The last is what the target asks for.
VARIANTS: Mapping[str, Asked] = {
    "NNCF, mixed preset, SmoothQuant": Asked(True, "MIXED", False, False),
    "the same without SmoothQuant": Asked(False, "MIXED", False, False),
    "without SmoothQuant, performance preset": Asked(False, "PERFORMANCE", False, False),
    "the same, products alone": Asked(False, "PERFORMANCE", True, False),
    "without SmoothQuant, mixed preset, products alone, all that was seen": Asked(False, "MIXED", True, True),
}
ROUNDS, CALLS = 25, 4


def figures(folder: Path) -> list[Figure]:
    """The time of each as a part of float32's, one thread, interleaved."""
    if any(find_spec(name) is None for name in ("timm", "skimage", "nncf")):
        return []
    return [figure for model in BACKBONES for figure in _of(folder, model)]


def _of(folder: Path, model: str) -> list[Figure]:
    import openvino as ov

    from model_defs.vqa.definitions import other_photographs

    words = [EXPORTER, "openvino", model, "--no-profile", "--dim", "batch=1", "--json", "-o", model]
    json.loads(subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout)
    bundle = Bundle.open(folder / model)
    path = str(bundle.file(bundle.manifest.graphs["model"].simplified))
    feeds = [{"image": sample.values["image"]} for sample in list(other_photographs())[::2]]
    core = ov.Core()

    def opened(graph: Any, hint: str) -> Any:
        settings = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
        request = core.compile_model(graph, "CPU", settings).create_infer_request()
        request.infer(feeds[0])
        return request.infer

    subjects = {"fp32": opened(core.read_model(path), "f32"), "bf16 by hint": opened(core.read_model(path), "bf16")}
    for name, asked in VARIANTS.items():
        subjects[name] = opened(_quantised(core.read_model(path), feeds, asked), "f32")
    ratios: dict[str, list[float]] = {name: [] for name in subjects if name != "fp32"}
    order = list(subjects)
    for _ in range(ROUNDS):
        random.Random(0).shuffle(order)
        spent = {name: statistics.median(time_each(subjects[name], CALLS, Monotonic())[0]) for name in order}
        for name, found in ratios.items():
            found.append(spent[name] / spent["fp32"])
    return [
        Figure(f"`{model}`, one thread: {name}", "none", statistics.median(found), True, "x of fp32")
        for name, found in ratios.items()
    ]


def _quantised(model: Any, feeds: list[Any], asked: Asked) -> Any:
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    logging.getLogger("nncf").setLevel(logging.ERROR)
    kinds = {op.get_type_name() for op in model.get_ops()}
    between = sorted(kinds - PRODUCTS - {"Constant", "Parameter", "Result"}) if asked.products else []
    attends = bool(kinds & {"Softmax", "ScaledDotProductAttention"})
    more: dict[str, Any] = {}
    if not asked.smooth:
        more["smooth_quant_alphas"] = nncf.AdvancedSmoothQuantParameters(matmul=-1, convolution=-1)
    if asked.least_and_largest:
        more["activations_range_estimator_params"] = RangeEstimatorParametersSet.MINMAX
    with contextlib.redirect_stdout(io.StringIO()):
        return nncf.quantize(
            model, nncf.Dataset(feeds), subset_size=len(feeds), preset=getattr(nncf.QuantizationPreset, asked.preset),
            model_type=nncf.ModelType.TRANSFORMER if attends else None,
            ignored_scope=nncf.IgnoredScope(types=between, validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(**more),
        )  # fmt: skip
