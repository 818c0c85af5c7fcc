"""How a quality model is trained: the options, the loss of scores, and the regularisers of attention and gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from exporter.errors import Refused

from .data import HELD_OUT

# Below this a weight's logarithm is cut: 0 has none, and an attention that chose one token holds zeros.
SMALLEST = 1e-8


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Args:
        epochs: passes over the material.
        batch: largest number of images per step, at least 2.
        learning_rate: at the start; it falls to 0 on a cosine.
        weight_decay: of AdamW, on matrices and kernels; norms and biases keep theirs.
        loss: ``mse``, ``l1`` or ``huber``.
        huber: the error at which ``huber`` goes from squares to lines; scores lie between 0 and 1.
        clip: largest norm of a step's gradient.
        diversity: weight of the regulariser that spreads attention.
        sparsity: weight of the regulariser that makes gates choose.
        size: pixels of a side of the crops to train on.
        crops: crops per photograph to train on.
        held_out_size: pixels of a side of what is held out; a larger picture has more to judge by.
        held_out_crops: crops per photograph held out.
        held_out: the photographs held out.
        patience: epochs without a better SRCC after which training stops; 0 for never.
        bf16: whether forward passes compute in bfloat16 where that is safe.
        seed: decides everything that is drawn.
        threads: threads of PyTorch.
    """

    epochs: int = 5
    batch: int = 32
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    loss: Literal["mse", "l1", "huber"] = "huber"
    huber: float = 0.1
    clip: float = 1.0
    diversity: float = 0.0
    sparsity: float = 0.0
    size: int = 64
    crops: int = 800
    held_out_size: int = 128
    held_out_crops: int = 60
    held_out: tuple[int, ...] = HELD_OUT
    patience: int = 0
    bf16: bool = False
    seed: int = 0
    threads: int = 2

    def __post_init__(self) -> None:
        if self.loss not in ("mse", "l1", "huber"):
            raise bad("loss", self.loss, "it is mse, l1 or huber")
        for name in ("epochs", "crops", "held_out_crops", "size", "held_out_size", "threads"):
            if getattr(self, name) < 1:
                raise bad(name, getattr(self, name), "at least 1")
        if self.batch < 2:
            raise bad("batch", self.batch, "a batch norm needs 2 images to have a variance")
        for name in ("learning_rate", "huber", "clip"):
            if not getattr(self, name) > 0:
                raise bad(name, getattr(self, name), "above 0")


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
    return nn.functional.huber_loss(found, wanted, delta=options.huber)


def regularisers(outputs: Mapping[str, Any], options: Training) -> Tensor:
    """What is added to the loss: the entropy of gates, and minus that of attention, each with its weight."""
    total = outputs["quality_score"].new_zeros(())
    for name, value in outputs.items():
        if options.diversity and "attention" in name:
            total = total - options.diversity * entropy(value)
        if options.sparsity and "gate" in name:
            total = total + options.sparsity * entropy(value)
    return total


def entropy(weights: Tensor) -> Tensor:
    """Mean entropy over the last axis, in nats: 0 where one weight has it all, log n where n share it.

    To be sparse is to have little of it. The sum of squares, which is often taken for it, is least for equal weights.
    """
    return -(weights * weights.clamp(min=SMALLEST).log()).sum(dim=-1).mean()


def bad(name: str, value: object, rule: str) -> Refused:
    """The error about one option of the training."""
    word = name.replace("_", "-")
    return Refused(
        "bad-option", f"--{word} {value}", where=f"training, option {word}", why=rule,
        next="python -m model_defs.vqa.train --help",
    )  # fmt: skip
