"""A model of your own, in a file: a function that returns a module, with or without example inputs."""

import torch
from torch import nn


class Edges(nn.Module):
    """Where a picture changes, and by how much in all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, width, 3, padding=1)
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        """``picture (1, 3, H, W)`` to a map of its size, and its mean."""
        edges = torch.sigmoid(self.out(torch.tanh(self.mix(picture))))
        return {"edges": edges, "amount": edges.mean((1, 2, 3))}


def make(width: int = 8) -> nn.Module:
    """What ``edges.py:make`` calls; ``--set width=16`` is its argument."""
    return Edges(width)


def make_with_example() -> tuple[nn.Module, torch.Tensor]:
    """The same beside an example, which says what it takes and is a case of its own."""
    return Edges(8), torch.rand(1, 3, 32, 48)
