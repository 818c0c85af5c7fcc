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
from typing import Any

from exporter.bundle import Bundle
from exporter.latency.clock import Monotonic, time_each
from tests.bench.figure import EXPORTER, Figure

BACKBONES = ("extractor-vit", "extractor-convnext", "extractor-efficientnet")
PRODUCTS = {"Convolution", "ConvolutionBackpropData", "GroupConvolution", "GroupConvolutionBackpropData", "MatMul"}
# What NNCF is asked: smoothing, the preset, products alone. The third is what the target asks.
VARIANTS: Mapping[str, tuple[bool, str, bool]] = {
    "NNCF, mixed preset, SmoothQuant": (True, "MIXED", False),
    "the same without SmoothQuant": (False, "MIXED", False),
    "without SmoothQuant, performance preset": (False, "PERFORMANCE", False),
    "the same, products alone": (False, "PERFORMANCE", True),
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
        subjects[name] = opened(_quantised(core.read_model(path), feeds, *asked), "f32")
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


def _quantised(model: Any, feeds: list[Any], smooth: bool, preset: str, products: bool) -> Any:
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    kinds = {op.get_type_name() for op in model.get_ops()}
    between = sorted(kinds - PRODUCTS - {"Constant", "Parameter", "Result"}) if products else []
    attends = bool(kinds & {"Softmax", "ScaledDotProductAttention"})
    plain = nncf.AdvancedSmoothQuantParameters(matmul=-1, convolution=-1)
    more = {} if smooth else {"advanced_parameters": nncf.AdvancedQuantizationParameters(smooth_quant_alphas=plain)}
    with contextlib.redirect_stdout(io.StringIO()):
        return nncf.quantize(
            model, nncf.Dataset(feeds), subset_size=len(feeds), preset=getattr(nncf.QuantizationPreset, preset),
            model_type=nncf.ModelType.TRANSFORMER if attends else None,
            ignored_scope=nncf.IgnoredScope(types=between, validate=False), **more,
        )  # fmt: skip
