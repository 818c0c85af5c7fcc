"""Small models, each with one thing that a real one does and should not, or does and may."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Plain(nn.Module):
    """A linear layer; with ``width`` 0 only arithmetic."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width) if width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.fc(x)) * 2


class Third(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 3


class Two(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, x * 3


class Aliases(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        y = x * 2
        return x, x, y, y


class Freezes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        scale = float(int(x.shape[1]))  # freezes
        return x * scale


class FreezesSecond(nn.Module):
    """``T`` froze, ``N`` did not, though a line about ``N`` stands before it."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + x.shape[0]
        return x * float(int(x.shape[1]))  # freezes second


class Narrows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[1] <= 20 else x * 3


class Merges(nn.Module):
    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return x + z  # merges


class MergesLast(nn.Module):
    def forward(self, w: Tensor, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        return w * 2, x + z


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # branches
            return x * 2
        return x


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("wrong on purpose")  # raises


class Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class MutatesInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        return x + 1


class MutatesBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1  # type: ignore[operator]
        return x * 2


class Counts(MutatesBuffer):
    """What it gives depends on how often it was asked."""

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1  # type: ignore[operator]
        return x * self.calls


class TrainsItsNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        self.norm.train()
        return self.norm(x.flatten(0, 1)).unsqueeze(0)


class StaysInTrain(nn.Module):
    """``eval()`` does not reach its part."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Dropout()

    def train(self, mode: bool = True) -> StaysInTrain:
        self.training = mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x)


class BatchStatistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class NanWeights(nn.Module):
    """One frozen value is NaN; seeding leaves what is frozen alone."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.ones(4, 4)
        weight[1, 2] = torch.nan
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class Float32Only(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float64:
            raise NotImplementedError("no kernel for Double")
        return self.fc(x)


class MakesTensors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) @ torch.linspace(0.0, 1.0, 16).reshape(4, 4)


class Dropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.drop = nn.Linear(4, 4), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc(x))


class Recurrent(nn.Module):
    """A recurrent layer with its states as outputs."""

    def __init__(self, layer: nn.RNNBase, two_states: bool) -> None:
        super().__init__()
        self.layer, self.two_states = layer, two_states

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        given: Any = None
        if state:
            given = state if self.two_states else state[0]
        y, last = self.layer(x, given)
        return (y, *last) if self.two_states else (y, last)


class Subclass(nn.GRU):
    """A user's own GRU."""

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Any:  # type: ignore[override]
        y, h = super().forward(input, hx)
        return y * 2, h


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        lengths = torch.full((3,), 6)
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True)[0]
