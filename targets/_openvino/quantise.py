"""Eight bits for OpenVINO: scales by NNCF, around products alone."""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Any

from safetensors.numpy import load_file

from exporter.target import Options

from .model import OUTSIDE

# OpenVINO's operators that int8 is for, and those that only move.
PRODUCTS = frozenset({"Convolution", "ConvolutionBackpropData", "GRUSequence", "GroupConvolution",
                      "GroupConvolutionBackpropData", "LSTMSequence", "MatMul"})  # fmt: skip
MOVING = frozenset({"Concat", "Reshape", "Split", "Squeeze", "Transpose", "Unsqueeze", "VariadicSplit"})


def quantised(model: Any, options: Options, narrow: bool = False) -> Any:
    """The model with scales for int8 taken by NNCF from what its graph is given on calibration inputs.

    ``narrow``: weights get seven bits, for processors that cut off sums of products of eight.
    """
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    logging.getLogger("nncf").setLevel(logging.ERROR)
    feeds = [load_file(path) for path in options.calibration_files]
    # The frontend makes several operators of one node, named after it: node_conv2d/WithoutBiases.
    named = [op.get_friendly_name() for op in model.get_ops()]
    kept = [name for name in named if name.partition("/")[0] in options.kept]
    attends = any(op.get_type_name() in ("Softmax", "ScaledDotProductAttention") for op in model.get_ops())
    # Products alone: what lies between them, sums and gates, loses more than it gains (docs/precision.md).
    between = sorted({op.get_type_name() for op in model.get_ops()} - PRODUCTS - OUTSIDE)
    # No smoothing: the products it puts before layers cost more than the layers gain.
    plain = nncf.AdvancedSmoothQuantParameters(matmul=-1, convolution=-1)
    # All that was seen is held: a quantile, NNCF's own choice, cuts off what rare inputs need.
    ranges = RangeEstimatorParametersSet.MINMAX
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(
            model,
            nncf.Dataset(feeds),
            subset_size=len(feeds),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER if attends else None,
            ignored_scope=nncf.IgnoredScope(names=kept, types=between, validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                smooth_quant_alphas=plain,
                activations_range_estimator_params=ranges,
                overflow_fix=nncf.OverflowFix.ENABLE if narrow else None,
            ),
        )


def not_quantised(model: Any) -> dict[str, str]:
    """The products that NNCF left as they were: it has no int8 for some, and thinks others too delicate."""
    left = {}
    for op in model.get_ordered_ops():
        if op.get_type_name() in PRODUCTS and not _from_scales(op.input_value(0).get_node()):
            left[op.get_friendly_name().partition("/")[0]] = "NNCF leaves it"
    return left


def _from_scales(node: Any, depth: int = 6) -> bool:
    """Whether a value comes from a FakeQuantize, perhaps moved on the way."""
    if node.get_type_name() == "FakeQuantize":
        return True
    moves = node.get_type_name() in MOVING
    return depth > 0 and moves and _from_scales(node.input_value(0).get_node(), depth - 1)
