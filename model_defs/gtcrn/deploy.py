"""GTCRN rewritten for deployment: the same function with fewer and cheaper operators.

Every step is an identity of real arithmetic, stated where it is made; weights are merged in float64 and rounded once.
Most of a frame's time is the overhead of its operators, not their arithmetic, so that zeros in a weight are welcome
where they save an operator.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import BANDS, CHANNELS, DPGRNN, GTCRN, HALF, LINEAR_BINS, GroupedGRU, GTConvBlock
from .stream import GTCRNStream, pack_state, unpack_state

OPEN_GATE = 40.0
"""An argument whose sigmoid is exactly 1, in float32 and in float64."""


def fold_batch_norm(conv: nn.Conv2d | nn.ConvTranspose2d, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Merges a batch normalisation into the convolution before it.

    ``bn(W x + b) = g W x + g (b - mean) + beta`` with ``g = gamma / sqrt(var + eps)``.

    Args:
        conv: The convolution, plain (C_out, C_in / groups, ...) or transposed (C_in, C_out / groups, ...).
        bn: The normalisation of its output.

    Returns:
        Weight, in the layout of ``conv``, and bias.
    """
    scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    bias = (conv.bias - bn.running_mean) * scale + bn.bias
    if not isinstance(conv, nn.ConvTranspose2d):
        return conv.weight * scale[:, None, None, None], bias
    # Each input channel feeds the consecutive outputs of its own group.
    per_input = scale.reshape(conv.groups, -1).repeat_interleave(conv.in_channels // conv.groups, dim=0)
    return conv.weight * per_input[:, :, None, None], bias


def as_convolution(conv: nn.Conv2d | nn.ConvTranspose2d, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Writes a normalised convolution of stride 1, plain or transposed, as a plain one.

    A transposed convolution of stride 1 is a convolution with both kernel axes flipped and, unless depthwise, the
    channel axes swapped.

    Returns:
        Weight (C_out, C_in / groups, kernel) and bias.
    """
    weight, bias = fold_batch_norm(conv, bn)
    if isinstance(conv, nn.ConvTranspose2d):
        weight = weight.flip(2, 3)
        weight = weight if conv.groups == conv.in_channels else weight.transpose(0, 1)
    return weight, bias


def convolution(weight: Tensor, bias: Tensor | None = None, **shape: Any) -> nn.Conv2d:
    """Builds a convolution from weight (C_out, C_in / groups, kernel) and bias."""
    inputs = weight.shape[1] * shape.get("groups", 1)
    conv = nn.Conv2d(inputs, weight.shape[0], weight.shape[2:], bias=bias is not None, **shape)
    conv.weight = nn.Parameter(weight.contiguous())
    conv.bias = None if bias is None else nn.Parameter(bias.contiguous())
    return conv


def join_gates(first: Tensor, second: Tensor) -> nn.Parameter:
    """Joins the weights or biases of two GRUs gate by gate: block-diagonally, or one after the other."""
    join = torch.block_diag if first.dim() == 2 else lambda *pair: torch.cat(pair)
    return nn.Parameter(torch.cat([join(*pair) for pair in zip(first.chunk(3), second.chunk(3), strict=True)]))


def merge_gru(grouped: GroupedGRU) -> nn.GRU:
    """Merges two GRUs on halves of the features into one on all of them.

    For each gate ``W = [[W1, 0], [0, W2]]``; the units of the first GRU come first.

    Args:
        grouped: The pair.

    Returns:
        The merged GRU; its sequences are (L, N, 16).
    """
    first, second = grouped.rnn1, grouped.rnn2
    merged = nn.GRU(2 * first.input_size, 2 * first.hidden_size, bidirectional=first.bidirectional)
    for name, _ in list(merged.named_parameters()):
        setattr(merged, name, join_gates(getattr(first, name), getattr(second, name)))
    return merged


def interleave(even: Tensor, odd: Tensor) -> Tensor:
    """Interleaves two tensors along their first axis."""
    return torch.stack((even, odd), dim=1).flatten(0, 1)


class Block(nn.Module):
    """A grouped temporal convolution as three convolutions and a gate on all 16 channels.

    The split and the shuffle are written into the weights: the widening convolution has zeros for the channels that
    pass by; a second pointwise convolution copies passing channel ``8 + i`` to ``2 i + 1`` and is added to the
    narrowing one, which writes transformed channel ``i`` to ``2 i``; the gate of a copied channel is
    ``sigmoid(40) = 1``.

    Args:
        block: The block of the published network.
    """

    def __init__(self, block: GTConvBlock) -> None:
        super().__init__()
        self.past = block.past
        weight, bias = as_convolution(block.point_conv1, block.point_bn1)
        # Unfolded channel 3 c + k before a pointwise convolution is tap k of a (1, 3) convolution on channel c.
        weight = weight.reshape(CHANNELS, HALF, 1, 3)
        self.widen = convolution(torch.cat((weight, torch.zeros_like(weight)), dim=1), bias, padding=(0, 1))
        self.widen_slope = block.point_act.weight.item()
        weight, bias = as_convolution(block.depth_conv, block.depth_bn)
        self.depth = convolution(weight, bias, padding=(0, 1), dilation=(self.past // 2, 1), groups=CHANNELS)
        self.depth_slope = block.depth_act.weight.item()
        weight, bias = as_convolution(block.point_conv2, block.point_bn2)
        self.narrow = convolution(
            interleave(weight, torch.zeros_like(weight)), interleave(bias, torch.zeros_like(bias))
        )
        copies = torch.eye(CHANNELS, dtype=weight.dtype)[HALF:, :, None, None]
        self.copy = convolution(interleave(torch.zeros_like(copies), copies))
        self.attend = self._attend(block.tra.att_gru)
        self.gate = copy.deepcopy(block.tra.att_fc)
        weight, bias = self.gate.weight, self.gate.bias
        self.gate.out_features = CHANNELS
        self.gate.weight = nn.Parameter(interleave(weight, torch.zeros_like(weight)))
        self.gate.bias = nn.Parameter(interleave(bias, torch.full_like(bias, OPEN_GATE)))

    @staticmethod
    def _attend(gru: nn.GRU) -> nn.GRU:
        attend = nn.GRU(CHANNELS, CHANNELS, dtype=gru.weight_ih_l0.dtype)
        attend.load_state_dict(gru.state_dict() | {"weight_ih_l0": attend.weight_ih_l0})
        # The mean over the bands is a sum with its factor in the weights; copied channels have no say.
        weight = gru.weight_ih_l0 / BANDS
        attend.weight_ih_l0 = nn.Parameter(interleave(weight.T, torch.zeros_like(weight.T)).T.contiguous())
        return attend

    def transform(self, x: Tensor, frames: Tensor) -> Tensor:
        """Maps the input, (B, 16, T, 33), and the widened one after its past, (B, 16, 2 d + T, 33), up to the gate."""
        deep = F.leaky_relu(self.depth(frames), self.depth_slope)
        return self.narrow(deep) + self.copy(x)

    def forward(self, x: Tensor) -> Tensor:
        """Maps all frames, (B, 16, T, 33), to (B, 16, T, 33)."""
        wide = F.leaky_relu(self.widen(x), self.widen_slope)
        y = self.transform(x, F.pad(wide, (0, 0, self.past, 0)))
        hidden, _ = self.attend((y * y).sum(-1).permute(2, 0, 1))
        return y * torch.sigmoid(self.gate(hidden)).permute(1, 2, 0).unsqueeze(-1)

    def step(self, x: Tensor, past: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Runs one frame.

        Args:
            x: Feature map, (1, 16, 1, 33).
            past: Inputs of the dilated convolution before it, (1, 16, 2 * dilation, 33).
            state: Hidden state of the attention before it, (1, 1, 16).

        Returns:
            Feature map, (1, 16, 1, 33), and both states after it.
        """
        frames = torch.cat((past, F.leaky_relu(self.widen(x), self.widen_slope)), dim=2)
        y = self.transform(x, frames)
        _, state = self.attend((y * y).sum(-1).reshape(1, 1, CHANNELS), state)
        gate = torch.sigmoid(self.gate(state.reshape(1, CHANNELS))).reshape(1, CHANNELS, 1, 1)
        return y * gate, frames[:, :, 1:], state


def merge_directions(gru: nn.GRU) -> nn.GRU:
    """Writes a bidirectional GRU as a forward one on a sequence and its mirror image.

    For each gate ``W = [[W_forward, 0], [0, W_backward]]``: a step takes ``(x[t], x[L - 1 - t])`` and yields the
    forward output at ``t`` and the backward output at ``L - 1 - t``. It halves the number of sequential steps.

    Args:
        gru: The bidirectional GRU, features in I, hidden units H.

    Returns:
        A GRU, features in 2 I, hidden units 2 H.
    """
    merged = nn.GRU(2 * gru.input_size, 2 * gru.hidden_size)
    for name, _ in list(merged.named_parameters()):
        setattr(merged, name, join_gates(getattr(gru, name), getattr(gru, f"{name}_reverse")))
    return merged


class DualPath(nn.Module):
    """A dual-path recurrent block with merged GRUs, all frames at once.

    Args:
        block: The block of the published network.
    """

    def __init__(self, block: DPGRNN) -> None:
        super().__init__()
        self.intra = merge_gru(block.intra_rnn)
        # Merged: both groups forwards, then both backwards. Published: each group forwards and backwards.
        columns = torch.arange(CHANNELS).reshape(2, 2, -1).transpose(0, 1).flatten()
        self.intra_fc = copy.deepcopy(block.intra_fc)
        self.intra_fc.weight = nn.Parameter(block.intra_fc.weight[:, columns].contiguous())
        self.intra_ln = copy.deepcopy(block.intra_ln)
        self.inter = merge_gru(block.inter_rnn)
        self.inter_fc = copy.deepcopy(block.inter_fc)
        self.inter_ln = copy.deepcopy(block.inter_ln)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, T, 33, 16) to (B, T, 33, 16)."""
        batch, frames = x.shape[:2]
        intra, _ = self.intra(x.flatten(0, 1).transpose(0, 1))
        x = x + self.intra_ln(self.intra_fc(intra).transpose(0, 1).unflatten(0, (batch, frames)))
        inter, _ = self.inter(x.transpose(0, 1).flatten(1, 2))
        return x + self.inter_ln(self.inter_fc(inter).unflatten(1, (batch, BANDS)).transpose(0, 1))


class DualPathStep(nn.Module):
    """A dual-path recurrent block for one frame, with half of the sequential steps along the bands.

    The mirror matrix ``M`` (66, 33) repeats the bands forwards in its even rows and backwards in its odd rows, so
    that row ``t`` of ``M x``, taken as 32 features, is ``(x[t], x[32 - t])``. Its transpose undoes the same to the
    outputs: ``W_f f[t] + W_b b[t]`` is row ``t`` of ``M^T z`` with ``z`` holding ``W_f h`` in its even rows and
    ``W_b h`` in its odd rows.

    Args:
        block: The block of the published network.
    """

    mirror: Tensor

    def __init__(self, block: DPGRNN) -> None:
        super().__init__()
        merged = DualPath(block)
        self.intra = merge_directions(merged.intra)
        forward, backward = merged.intra_fc.weight.chunk(2, dim=1)
        self.intra_fc = nn.Linear(CHANNELS, 2 * CHANNELS, bias=False)
        self.intra_fc.weight = nn.Parameter(torch.block_diag(forward, backward))
        self.intra_bias = merged.intra_fc.bias
        self.intra_ln = merged.intra_ln
        self.inter, self.inter_fc, self.inter_ln = merged.inter, merged.inter_fc, merged.inter_ln
        eye = torch.eye(BANDS, dtype=forward.dtype)
        self.register_buffer("mirror", interleave(eye, eye.flip(0)))

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Maps one frame, (1, 33, 16), and the state before it, (1, 33, 16), to both after it."""
        intra, _ = self.intra((self.mirror @ x).reshape(BANDS, 1, 2 * CHANNELS))
        both = self.intra_fc(intra.reshape(BANDS, CHANNELS)).reshape(2 * BANDS, CHANNELS)
        x = x + self.intra_ln(torch.addmm(self.intra_bias, self.mirror.T, both).unsqueeze(0))
        _, state = self.inter(x, state)
        return x + self.inter_ln(self.inter_fc(state.reshape(BANDS, CHANNELS)).unsqueeze(0)), state


class Head(nn.Module):
    """Spectrum to the outputs of both strided convolutions.

    Args:
        network: The network in either published form.
    """

    compress: Tensor

    def __init__(self, network: GTCRN | GTCRNStream) -> None:
        super().__init__()
        first, second = network.encoder.en_convs[:2]
        filters = network.erb.erb_fc.weight
        # The bins that bypass the filters do so by an identity.
        low = torch.eye(LINEAR_BINS, dtype=filters.dtype)
        self.register_buffer("compress", torch.block_diag(low, filters.T))
        # Unfolded to 16 channels, 7 of them empty: convolution kernels are made for such multiples.
        taps = torch.eye(9, dtype=filters.dtype).reshape(9, 3, 1, 3)
        self.unfold = convolution(F.pad(taps, (0, 0, 0, 0, 0, 0, 0, CHANNELS - 9)), padding=(0, 1))
        weight, bias = fold_batch_norm(first.conv, first.bn)
        weight = F.pad(weight, (0, 0, 0, 0, 0, CHANNELS - 9))
        self.first = convolution(weight, bias, stride=(1, 2), padding=(0, 2))
        self.first_slope = first.act.weight.item()
        weight, bias = fold_batch_norm(second.conv, second.bn)
        dense = torch.cat([F.pad(w, (0, 0, 0, 0, HALF * i, HALF - HALF * i)) for i, w in enumerate(weight.chunk(2))])
        self.second = convolution(dense, bias, stride=(1, 2), padding=(0, 2))
        self.second_slope = second.act.weight.item()

    def forward(self, parts: Tensor) -> tuple[Tensor, Tensor]:
        """Maps real and imaginary part, (B, 2, T, 257), to (B, 16, T, 65) and (B, 16, T, 33)."""
        magnitude = torch.sqrt((parts * parts).sum(1, keepdim=True) + 1e-12)
        bands = self.unfold(torch.cat((magnitude, parts), dim=1) @ self.compress)
        first = F.leaky_relu(self.first(bands), self.first_slope)
        return first, F.leaky_relu(self.second(first), self.second_slope)


def zero_stuffed(conv: nn.ConvTranspose2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """Writes a normalised transposed convolution of stride 2 as a convolution on its input with zeros in between.

    Args:
        conv: The transposed convolution, kernel (1, 5), padding 2 on the band axis.
        bn: The normalisation of its output.

    Returns:
        A dense convolution of stride 1 with the flipped kernel, from 2 F - 1 bands to as many.
    """
    weight, bias = fold_batch_norm(conv, bn)
    outputs, inputs = weight.shape[1], conv.in_channels // conv.groups
    dense = weight.new_zeros(outputs * conv.groups, conv.in_channels, 1, 5)
    for group in range(conv.groups):
        source = slice(group * inputs, (group + 1) * inputs)
        dense[group * outputs : (group + 1) * outputs, source] = weight[source].transpose(0, 1).flip(3)
    return convolution(dense, bias, padding=(0, 2))


class Tail(nn.Module):
    """Last feature map to enhanced spectrum.

    The first transposed convolution runs on zero-stuffed bands. The second yields even and odd bands as channels of
    their own, ``y[2 j] = w[4] x[j - 1] + w[2] x[j] + w[0] x[j + 1]`` and ``y[2 j + 1] = w[3] x[j] + w[1] x[j + 1]``;
    the rows of the expansion to bins are permuted accordingly, and zero for the odd band past the end.

    The last convolution yields the rows of the matrix that multiplies with the mask: ``[[r, -i], [i, r]]``; tanh is
    odd, so the sign goes into the weights.

    Args:
        network: The network in either published form.
    """

    spread: Tensor
    expand: Tensor

    def __init__(self, network: GTCRN | GTCRNStream) -> None:
        super().__init__()
        first, second = network.decoder.de_convs[3:]
        filters = network.erb.ierb_fc.weight
        low = torch.eye(LINEAR_BINS, dtype=filters.dtype)
        expand = torch.block_diag(low, filters.T)
        self.register_buffer("expand", torch.cat((expand[::2], F.pad(expand[1::2], (0, 0, 0, 1)))))
        eye = torch.eye(BANDS, dtype=filters.dtype)
        self.register_buffer("spread", interleave(eye, torch.zeros_like(eye))[:-1].T.contiguous())
        self.first = zero_stuffed(first.conv, first.bn)
        self.first_slope = first.act.weight.item()
        weight, bias = fold_batch_norm(second.conv, second.bn)
        even = weight[..., [4, 2, 0]]
        odd = F.pad(weight[..., [3, 1]], (1, 0))
        phases = torch.stack((even, odd), dim=2).permute(1, 2, 0, 3, 4)
        matrix = torch.cat((phases[0], -phases[1], phases[1], phases[0]))
        real, imag = bias
        self.second = convolution(matrix, torch.stack((real, -imag, imag, real)).repeat_interleave(2), padding=(0, 1))

    def forward(self, parts: Tensor, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Maps the noisy parts, (B, 2, T, 257), the last feature map and both skips to the enhanced parts."""
        x = F.leaky_relu(self.first((x + second) @ self.spread), self.first_slope)
        mask = torch.tanh(self.second(x + first)).unflatten(1, (4, 2)).transpose(2, 3).flatten(3) @ self.expand
        return (mask.unflatten(1, (2, 2)) * parts.unsqueeze(1)).sum(2)


class DeployedOffline(nn.Module):
    """All frames at once.

    Args:
        network: The published network.
    """

    def __init__(self, network: GTCRN) -> None:
        super().__init__()
        self.head = Head(network)
        self.encoder = nn.ModuleList(Block(block) for block in network.encoder.en_convs[2:])
        self.dual = nn.ModuleList(DualPath(block) for block in (network.dpgrnn1, network.dpgrnn2))
        self.decoder = nn.ModuleList(Block(block) for block in network.decoder.de_convs[:3])
        self.tail = Tail(network)

    def forward(self, spec: Tensor) -> Tensor:
        """Maps a noisy spectrum, (B, 257, T, 2), to the enhanced one, (B, 257, T, 2)."""
        parts = spec.permute(0, 3, 2, 1)
        skips = list(self.head(parts))
        for block in self.encoder:
            skips.append(block(skips[-1]))
        x = skips[-1].permute(0, 2, 3, 1)
        for dual in self.dual:
            x = dual(x)
        x = x.permute(0, 3, 1, 2)
        for block in self.decoder:
            x = block(x + skips.pop())
        return self.tail(parts, x, *skips).permute(0, 3, 2, 1)


class DeployedStream(nn.Module):
    """One frame, with the states of ``STATES``.

    Args:
        stream: The published network, frame by frame.
    """

    def __init__(self, stream: GTCRNStream) -> None:
        super().__init__()
        self.head = Head(stream)
        self.encoder = nn.ModuleList(Block(block) for block in stream.encoder.en_convs[2:])
        self.dual = nn.ModuleList(DualPathStep(block) for block in (stream.dpgrnn1, stream.dpgrnn2))
        self.decoder = nn.ModuleList(Block(block) for block in stream.decoder.de_convs[:3])
        self.tail = Tail(stream)

    def forward(self, mix: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Maps a noisy frame, (1, 257, 1, 2), and the states before it to the enhanced frame and the states after."""
        enhanced, *state = self.step(mix.permute(0, 3, 2, 1), *state)
        return (enhanced.permute(0, 3, 2, 1), *state)

    def step(self, parts: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """As :meth:`forward`, on real and imaginary part of the frame, (1, 2, 1, 257)."""
        pasts, attentions, inters = unpack_state(state)
        skips = list(self.head(parts))
        for i, block in enumerate(self.encoder):
            x, pasts[i], attentions[i] = block.step(skips[-1], pasts[i], attentions[i])
            skips.append(x)
        x = skips[-1].permute(0, 2, 3, 1).reshape(1, BANDS, CHANNELS)
        for i, dual in enumerate(self.dual):
            x, inters[i] = dual(x, inters[i])
        x = x.reshape(1, 1, BANDS, CHANNELS).permute(0, 3, 1, 2)
        for i, block in enumerate(self.decoder, start=3):
            x, pasts[i], attentions[i] = block.step(x + skips.pop(), pasts[i], attentions[i])
        return (self.tail(parts, x, *skips), *pack_state(pasts, attentions, inters))


def _deploy(form: Callable[..., nn.Module], network: GTCRN | GTCRNStream) -> nn.Module:
    """Builds a deployed form in float64 and casts it to the network's type."""
    dtype = network.erb.erb_fc.weight.dtype
    with torch.no_grad():
        deployed = form(copy.deepcopy(network).eval().double()).to(dtype)
    return deployed.requires_grad_(False).eval()


def deploy_offline(network: GTCRN) -> nn.Module:
    """Rewrites the offline network for deployment.

    Args:
        network: The network; it is left as it is.

    Returns:
        A module in evaluation mode with the same inputs, outputs and type.
    """
    return _deploy(DeployedOffline, network)


def deploy_stream(stream: GTCRNStream, form: Callable[..., nn.Module] = DeployedStream) -> nn.Module:
    """Rewrites the per-frame network for deployment.

    Args:
        stream: The network; it is left as it is.
        form: ``DeployedStream``, or the class of it that has the network's inputs and outputs.

    Returns:
        A module in evaluation mode with the same inputs, outputs, states and type.
    """
    return _deploy(form, stream)
