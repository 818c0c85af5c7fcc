"""Ways to quantise for OpenVINO, on the backbones of the quality model: which of them the target takes, and why."""

from __future__ import annotations

import contextlib
import io
import logging
import random
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from exporter.bundle import Bundle
from exporter.host.metrics import srcc
from exporter.latency.clock import Monotonic, time_each
from tests.bench.figure import Figure
from tests.bench.precision import BACKBONES

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
    """The time of each as a part of float32's, one thread, interleaved, and what the ranking of crops loses.

    Of the models, calibration inputs and held-out crops that the part ``precision`` leaves.
    """
    if any(find_spec(name) is None for name in ("timm", "skimage", "nncf")):
        return []
    return [figure for name in BACKBONES for figure in _of(folder, name)]


def _of(folder: Path, name: str) -> list[Figure]:
    import openvino as ov

    bundle = Bundle.open(folder / f"vqa-{name}")
    path = str(bundle.file(bundle.manifest.graphs["model"].simplified))
    feeds, crops = ([np.load(file) for file in sorted((folder / f).iterdir())] for f in ("calibration", "judged"))
    feeds, truths = [{"image": crop["image"]} for crop in feeds], [{"score": crop["truth/score"]} for crop in crops]
    core = ov.Core()

    def opened(graph: Any, hint: str) -> Callable[[Any], Any]:
        settings = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
        return core.compile_model(graph, "CPU", settings).create_infer_request().infer  # type: ignore[no-any-return]

    def ranked(infer: Callable[[Any], Any]) -> float:
        return srcc([{"score": infer({"image": crop["image"]})["quality_score"].ravel()} for crop in crops], truths)

    subjects = {"fp32": opened(core.read_model(path), "f32"), "bf16 by hint": opened(core.read_model(path), "bf16")}
    for variant, asked in VARIANTS.items():
        subjects[variant] = opened(_quantised(core.read_model(path), feeds, asked), "f32")
    ranks = {variant: ranked(infer) for variant, infer in subjects.items()}
    ratios: dict[str, list[float]] = {variant: [] for variant in subjects if variant != "fp32"}
    order, rng = list(subjects), random.Random(0)
    for _ in range(ROUNDS):
        rng.shuffle(order)
        call = {variant: partial(subjects[variant], feeds[0]) for variant in order}
        spent = {variant: statistics.median(time_each(call[variant], CALLS, Monotonic())[0]) for variant in order}
        for variant, found in ratios.items():
            found.append(spent[variant] / spent["fp32"])
    return [
        Figure(f"`vqa` with {name}, one thread: {variant}", "none", statistics.median(found), True, "x of fp32",
               note=f"SRCC loss {ranks['fp32'] - ranks[variant]:.4f}")
        for variant, found in ratios.items()
    ]  # fmt: skip


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
