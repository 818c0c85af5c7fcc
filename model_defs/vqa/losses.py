"""The loss of scores, and the regularisers of attention and gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .options import REGULARISED, Training

# Below this a weight's logarithm is cut: 0 has none, and an attention that chose one token holds zeros.
SMALLEST_WEIGHT = 1e-8


def quality_loss(found: Tensor, wanted: Tensor, options: Training) -> Tensor:
    """The mean loss of scores ``(B, 1)`` or ``(B,)`` against ``(B,)``: each with its own, never each with every one.

    Raises:
        ValueError: when there are not as many.
    """
    if found.numel() != wanted.numel():
        raise ValueError(f"{tuple(found.shape)} scores for {tuple(wanted.shape)} truths")
    found, wanted = found.reshape(-1), wanted.reshape(-1)
    if options.loss == "mse":
        return nn.functional.mse_loss(found, wanted)
    if options.loss == "l1":
        return nn.functional.l1_loss(found, wanted)
    assert options.huber is not None
    return nn.functional.huber_loss(found, wanted, delta=options.huber)


def regularisers(outputs: Mapping[str, Any], options: Training) -> Tensor:
    """What is added to the loss: the entropy of gates, and minus that of attention, each with its weight."""
    total = outputs["quality_score"].new_zeros(())
    for name, value in outputs.items():
        if options.diversity and REGULARISED["diversity"] in name:
            total = total - options.diversity * entropy(value)
        if options.sparsity and REGULARISED["sparsity"] in name:
            total = total + options.sparsity * entropy(value)
    return total


def entropy(weights: Tensor) -> Tensor:
    """Mean entropy over the last axis, in nats: 0 where one weight has it all, log n where n share it.

    To be sparse is to have little of it. The sum of squares, which is often taken for it, is least for equal weights.
    """
    return -(weights * weights.clamp(min=SMALLEST_WEIGHT).log()).sum(dim=-1).mean()
