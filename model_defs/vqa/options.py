"""How a quality model is trained: one frozen, typed value, checked when it is made. No torch.

An option has an effect, or is refused: its rule stands beside its meaning, and ``--help`` prints the meaning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from exporter.errors import Refused, nearest
from exporter.settings import LARGEST

# One of every kind: a portrait of an animal, a street scene, a gray photograph, a texture.
HELD_OUT = (1, 4, 8, 11)
LOSSES = ("mse", "l1", "huber")
HUBER = 0.1
LARGEST_SEED = 2**32 - 1
# What each regulariser is about: the word that stands in the names of those outputs.
REGULARISED = {"diversity": "attention", "sparsity": "gate"}


def _whole(default: int, least: int, meaning: str, most: int = LARGEST) -> Any:
    def allows(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    return _option(default, meaning, int, f"it is a whole number from {least} to {most}", allows)


def _number(default: float, meaning: str, above_zero: bool = False) -> Any:
    def allows(value: object) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return number and (value > 0 if above_zero else value >= 0)  # type: ignore[operator]

    return _option(
        default, meaning, float, f"it is a finite number, {'above 0' if above_zero else '0 or more'}", allows
    )


def _option(default: Any, meaning: str, kind: Any, rule: str, allows: Callable[[Any], bool]) -> Any:
    return field(default=default, metadata={"help": meaning, "type": kind, "rule": rule, "allows": allows})


def _photographs(value: object) -> bool:
    """Which of them exist is known to those who read them."""
    wholes = isinstance(value, tuple) and all(type(index) is int and index >= 0 for index in value)
    return wholes and 0 < len(value) == len(set(value))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Training:
    """How a model is trained; the fields' help says what each is.

    ``huber`` belongs to one loss: ``None`` takes 0.1 with it, and any value is refused with another.

    Raises:
        Refused: ``bad-option``.
    """

    epochs: int = _whole(10, 1, "passes over the material")
    batch: int = _whole(32, 2, "largest number of images per step; a batch norm needs 2 to have a variance")
    learning_rate: float = _number(1.5e-3, "at the start; it falls to 0 on a cosine", above_zero=True)
    weight_decay: float = _number(0.05, "of AdamW, on matrices and kernels; norms, biases and tokens keep theirs")
    loss: str = _option("huber", "mse, l1 or huber", str, f"it is {', '.join(LOSSES)}", LOSSES.__contains__)
    huber: float | None = _number(
        None,  # type: ignore[arg-type]
        f"with that loss: the error at which it goes from squares to lines ({HUBER}); scores lie between 0 and 1",
        above_zero=True,
    )
    clip: float = _number(1.0, "largest norm of a step's gradient", above_zero=True)
    diversity: float = _number(0.0, "weight of what spreads attention, in fusions that have attention")
    sparsity: float = _number(0.0, "weight of what makes gates choose, in fusions that have gates")
    size: int = _whole(64, 1, "pixels of a side of the crops to train on")
    crops: int = _whole(800, 1, "crops per photograph to train on")
    held_out_size: int = _whole(128, 1, "pixels of a side of what is held out; a larger picture has more to judge by")
    held_out_crops: int = _whole(60, 1, "crops per photograph held out")
    held_out: tuple[int, ...] = _option(
        HELD_OUT, "the photographs held out", tuple, "it is different whole numbers from 0 on", _photographs
    )
    patience: int = _whole(0, 0, "epochs without a better SRCC after which training stops; 0 for never")
    bf16: bool = _option(
        False,
        "compute forward passes in bfloat16 where that is safe",
        bool,
        "it is true or false",
        lambda value: isinstance(value, bool),
    )
    seed: int = _whole(0, 0, "decides everything that is drawn", most=LARGEST_SEED)
    threads: int = _whole(2, 1, "threads of PyTorch")

    def __post_init__(self) -> None:
        if self.loss == "huber" and self.huber is None:
            object.__setattr__(self, "huber", HUBER)
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name == "huber" and value is None:
                continue
            if not option.metadata["allows"](value):
                hint = nearest(str(value), list(LOSSES)) if option.name == "loss" else ""
                raise bad(option.name, value, option.metadata["rule"] + hint)
        if self.loss != "huber" and self.huber is not None:
            raise bad("huber", self.huber, f"nothing reads it with the loss {self.loss}")

    def refuse_idle(self, parts: Iterable[str]) -> None:
        """Refuses a regulariser of what a model does not give.

        Args:
            parts: names of the fusion's outputs.

        Raises:
            Refused: ``bad-option``.
        """
        names = list(parts)
        for option, word in REGULARISED.items():
            value = getattr(self, option)
            if value and not any(word in name for name in names):
                raise bad(option, value, f"nothing reads it: the fusion gives {', '.join(names) or 'no weights'}")


def bad(name: str, value: object, rule: str) -> Refused:
    """The error about one option of the training."""
    word = name.replace("_", "-")
    return Refused(
        "bad-option", f"--{word} {value}", where=f"training, option {word}", why=rule,
        next="python -m model_defs.vqa.train --help",
    )  # fmt: skip
