"""The stereo networks rewritten for deployment: the same functions with fewer and cheaper operators.

Every step is an identity of real arithmetic, stated where it is made.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .correlation import LOOKUPS, CorrelationLookup
from .gru import ContextConvGRU, RaftConvGRU, SelectiveConvGRU
from .raft import RaftStereo
from .rewriting import fold_batch_norms, in_float64
from .selective import SelectiveRaft
from .update import SelectiveUnits
from .upsample import ConvexUpsample, ShiftedUpsample


def deploy_raft(network: RaftStereo, sampler: str = "gather") -> RaftStereo:
    """RAFT-Stereo without an unfolding or a batch normalisation, the gates of a unit in one convolution.

    Args:
        network: the published network.
        sampler: how the correlation is read, a key of :data:`correlation.LOOKUPS`.
    """

    def rewrite(deployed: RaftStereo) -> None:
        _without_unfolding(deployed, sampler)
        fold_batch_norms(deployed.cnet)
        units = ("gru08", "gru16", "gru32")[: deployed.shape.layers]
        for name in units:
            setattr(deployed.update_block, name, JoinedContextGRU(getattr(deployed.update_block, name)))

    return in_float64(network, rewrite)


def deploy_selective(network: SelectiveRaft, sampler: str = "gather") -> SelectiveRaft:
    """Selective-RAFT likewise, and what its units take of the context computed before the first iteration."""

    def rewrite(deployed: SelectiveRaft) -> None:
        _without_unfolding(deployed, sampler)
        fold_batch_norms(deployed.cnet)
        deployed.update_block = PreparedUpdate(deployed.update_block)

    return in_float64(network, rewrite)


def deploy_upsample(module: ConvexUpsample) -> ShiftedUpsample:
    """The upsampler with shifted slices."""
    return ShiftedUpsample(module.factor)


def deploy_gru(unit: RaftConvGRU) -> JoinedGRU:
    """The unit with both gates in one convolution."""
    return JoinedGRU(unit)


def deploy_context_gru(unit: ContextConvGRU) -> JoinedContextGRU:
    """RAFT-Stereo's unit likewise."""
    return JoinedContextGRU(unit)


def deploy_selective_gru(unit: SelectiveConvGRU) -> SelectiveConvGRU:
    """The selective unit with the gates of each of its two units in one convolution."""
    deployed = copy.deepcopy(unit)
    deployed.small_gru, deployed.large_gru = JoinedGRU(unit.small_gru), JoinedGRU(unit.large_gru)
    return deployed


def deploy_lookup(_: CorrelationLookup) -> CorrelationLookup:
    """The lookup without a sampler."""
    return CorrelationLookup("gather")


def _without_unfolding(network: RaftStereo | SelectiveRaft, sampler: str) -> None:
    network.lookup = LOOKUPS[sampler]()
    network.upsampler = ShiftedUpsample(network.shape.factor)


def convolution(parts: Sequence[nn.Conv2d], channels: slice = slice(None), bias: bool = True) -> nn.Conv2d:
    """Several convolutions of the same input as one, their outputs one after the other.

    Args:
        parts: of one kernel size.
        channels: which channels of their input they read.
        bias: whether with their biases.
    """
    weight = torch.cat([part.weight for part in parts])[:, channels]
    size = weight.shape[-1]
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], size, padding=size // 2, bias=bias, dtype=weight.dtype)
    conv.weight = nn.Parameter(weight.contiguous())
    if bias:
        conv.bias = nn.Parameter(torch.cat([part.bias for part in parts]))
    return conv


class JoinedGRU(nn.Module):
    """A unit whose update and reset gates come from one convolution.

    Args:
        unit: the published unit.
    """

    def __init__(self, unit: RaftConvGRU) -> None:
        super().__init__()
        self.gates, self.candidate = convolution([unit.convz, unit.convr]), convolution([unit.convq])

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        """As :meth:`gru.RaftConvGRU.forward`."""
        z, r = torch.sigmoid(self.gates(torch.cat([h, x], dim=1))).chunk(2, dim=1)
        return h + z * (torch.tanh(self.candidate(torch.cat([r * h, x], dim=1))) - h)


class JoinedContextGRU(nn.Module):
    """The unit of RAFT-Stereo likewise.

    Args:
        unit: the published unit.
    """

    def __init__(self, unit: ContextConvGRU) -> None:
        super().__init__()
        self.gates, self.candidate = convolution([unit.convz, unit.convr]), convolution([unit.convq])

    def forward(self, h: Tensor, cz: Tensor, cr: Tensor, cq: Tensor, x: Tensor) -> Tensor:
        """As :meth:`gru.ContextConvGRU.forward`."""
        gates = self.gates(torch.cat([h, x], dim=1)) + torch.cat([cz, cr], dim=1)
        z, r = torch.sigmoid(gates).chunk(2, dim=1)
        return h + z * (torch.tanh(self.candidate(torch.cat([r * h, x], dim=1)) + cq) - h)


class PreparedGRU(nn.Module):
    """A unit whose products with the context are computed once.

    ``W [h, c, x] + b = (Wh [h, x]) + (Wc c + b)``, and ``c`` is the same in all iterations.

    Args:
        unit: the published unit; its input begins with the context.
        hidden: channels of state and context.
    """

    def __init__(self, unit: RaftConvGRU, hidden: int) -> None:
        super().__init__()
        whole = [unit.convz, unit.convr, unit.convq]
        self.hidden = hidden
        self.of_context = convolution(whole, slice(hidden, 2 * hidden))
        self.gates, self.candidate = _without(whole[:2], hidden), _without(whole[2:], hidden)

    def forward(self, h: Tensor, prepared: Tensor, x: Tensor) -> Tensor:
        """``h (B, hidden, h, w)``, what ``of_context`` gave, and the rest of the input to the next ``h``."""
        of_gates, of_candidate = prepared.split([2 * self.hidden, self.hidden], dim=1)
        z, r = torch.sigmoid(self.gates(torch.cat([h, x], dim=1)) + of_gates).chunk(2, dim=1)
        return h + z * (torch.tanh(self.candidate(torch.cat([r * h, x], dim=1)) + of_candidate) - h)


def _without(parts: Sequence[nn.Conv2d], hidden: int) -> nn.Conv2d:
    """The convolutions as one that skips the context, with no bias: that went with the context."""
    kept = copy.deepcopy(list(parts))
    for part in kept:
        part.weight = nn.Parameter(torch.cat([part.weight[:, :hidden], part.weight[:, 2 * hidden :]], dim=1))
    return convolution(kept, bias=False)


class PreparedSelectiveGRU(nn.Module):
    """The selective unit of two such units.

    Args:
        unit: the published unit.
        hidden: channels of state and context.
    """

    def __init__(self, unit: SelectiveConvGRU, hidden: int) -> None:
        super().__init__()
        self.small_gru, self.large_gru = PreparedGRU(unit.small_gru, hidden), PreparedGRU(unit.large_gru, hidden)

    def prepare(self, context: Tensor) -> Tensor:
        """``(B, hidden, h, w)`` to ``(B, 6 * hidden, h, w)``: what it adds to the gates of both units."""
        return torch.cat([self.small_gru.of_context(context), self.large_gru.of_context(context)], dim=1)

    def forward(self, attention: Tensor, h: Tensor, prepared: Tensor, x: Tensor) -> Tensor:
        """The next ``h``: ``A small + (1 - A) large`` as ``large + A (small - large)``."""
        of_small, of_large = prepared.chunk(2, dim=1)
        large = self.large_gru(h, of_large, x)
        return large + attention * (self.small_gru(h, of_small, x) - large)


class PreparedUpdate(SelectiveUnits):
    """An update whose units have such units; whatever else it has is kept.

    Args:
        block: the published update.
    """

    def __init__(self, block: SelectiveUnits) -> None:
        nn.Module.__init__(self)
        parts = dict(block.named_children())
        units = [parts.pop(name) for name in block.UNITS if name in parts]
        for name, part in parts.items():
            self.add_module(name, part)
        hidden = block.disp_head.conv1.in_channels
        self.units = nn.ModuleList(PreparedSelectiveGRU(unit, hidden) for unit in units)

    def unit(self, level: int) -> nn.Module:
        """The unit of a level, 0 the finest."""
        return self.units[level]

    def prepare(self, context: Sequence[Tensor]) -> list[Tensor]:
        """What the context adds to the gates of each level's unit."""
        return [unit.prepare(c) for unit, c in zip(self.units, context, strict=True)]

    def advance(self, level: int, attention: Tensor, h: Tensor, context: Tensor, given: list[Tensor]) -> Tensor:
        """The next state of one level."""
        state: Tensor = self.unit(level)(attention, h, context, torch.cat(given, dim=1))
        return state
