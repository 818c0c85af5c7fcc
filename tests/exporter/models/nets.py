"""What people bring: functions that give modules, and functions that do not."""

from __future__ import annotations

import os
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Pair = namedtuple("Pair", "first second")


@dataclass
class Found:
    boxes: torch.Tensor
    score: float


class Net(nn.Module):
    """Takes a picture and perhaps a scale; gives a mapping of tensors, some in a tuple."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.head = nn.Linear(width, 5)

    def forward(self, image: torch.Tensor, scale: torch.Tensor | None = None) -> dict[str, Any]:
        maps = torch.relu(self.conv(image))
        maps = maps if scale is None else maps * scale
        halves = maps[:, :, ::2, ::2]
        return {"logits": self.head(maps.mean((2, 3))), "maps": (maps, halves), "count": 3, "nothing": None}


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(ids)).cumsum(1)


class Nested(nn.Module):
    """Takes a mapping with a list inside, and a number; gives a named tuple of a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4)

    def forward(self, batch: dict[str, Any], power: int = 1) -> Pair:
        x = self.head(batch["x"]) ** power
        return Pair(Found(x + batch["rest"][0], 0.5), x)


def net(width: int = 4) -> nn.Module:
    return Net(width)


def tagger() -> nn.Module:
    return Tagger()


def with_example() -> tuple[nn.Module, torch.Tensor]:
    return Net(), torch.linspace(-2, 3, 3 * 8 * 8).reshape(1, 3, 8, 8)


def with_tokens() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    return Tagger(), {"ids": torch.tensor([[3, 1, 49, 7]])}


def nested() -> tuple[nn.Module, tuple[Any, ...]]:
    return Nested(), ({"x": torch.ones(2, 4), "rest": [torch.zeros(2, 4)]}, 2)


class Named(nn.Module):
    """Takes some of what it takes by name alone."""

    def forward(self, x: torch.Tensor, skipped: int = 3, *, scale: torch.Tensor) -> torch.Tensor:
        return x * scale + skipped


def named() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    return Named(), {"scale": torch.full((1,), 2.0), "x": torch.ones(2, 4)}


def twice() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """One tensor in two places."""
    x = torch.ones(1, 3, 8, 8)
    return Net(3), (x, x)


def untrained() -> nn.Module:
    """Keeps its example where Lightning looks for it."""
    module = nn.Sequential(nn.Linear(4, 2), nn.Dropout())
    module.example_input_array = torch.ones(3, 4)
    return module


def chatty() -> tuple[nn.Module, torch.Tensor]:
    print('{"verdict": "PASS"}')
    os.chdir("/")
    return with_example()


def raises() -> nn.Module:
    raise ValueError("no such width\nand more")


def leaves() -> nn.Module:
    raise SystemExit(0)


def wrong() -> int:
    return 3


def scripted() -> nn.Module:
    return torch.jit.script(nn.Linear(2, 2))


def network() -> nn.Module:
    import urllib.request

    urllib.request.urlopen("http://127.0.0.1:9/weights")
    return Net()


def no_tensor() -> tuple[nn.Module, torch.Tensor]:
    class Empty(nn.Module):
        def forward(self, x: torch.Tensor) -> int:
            return x.dim()

    return Empty(), torch.ones(2)
