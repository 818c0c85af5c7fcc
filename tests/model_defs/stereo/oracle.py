"""RAFT-Stereo and Selective-RAFT as plain functions of a state dict, to hold the networks' wiring against.

Nothing here comes from the definitions: every layer is read by its key, and sampling and unfolding are in their
textbook form. Sources: Lipson et al., "RAFT-Stereo", 3DV 2021; Wang et al., "Selective-Stereo", CVPR 2024; Teed and
Deng, "RAFT", ECCV 2020; keys and shapes of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]

# ------------------------------------------------------------------------------------------------------- layers


def conv(w: Weights, key: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    """The convolution of that key, in two or three dimensions, padded by half its kernel."""
    weight = w[f"{key}.weight"]
    apply = {4: F.conv2d, 5: F.conv3d}[weight.dim()]
    return apply(x, weight, w.get(f"{key}.bias"), stride=stride, padding=weight.shape[-1] // 2, groups=groups)


def batch(w: Weights, key: str, x: Tensor) -> Tensor:
    """The batch normalisation of that key, by its running statistics."""
    mean, var, weight, bias = (w[f"{key}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, weight, bias, training=False, eps=1e-5)


def residual(w: Weights, key: str, x: Tensor, stride: int = 1) -> Tensor:
    """A residual block; without the keys of its normalisations these are by instance."""
    batched = f"{key}.norm1.weight" in w

    def norm(name: str, y: Tensor) -> Tensor:
        return batch(w, f"{key}.{name}", y) if batched else F.instance_norm(y, eps=1e-5)

    y = F.relu(norm("norm1", conv(w, f"{key}.conv1", x, stride)))
    y = F.relu(norm("norm2", conv(w, f"{key}.conv2", y)))
    if f"{key}.downsample.0.weight" in w:
        x = norm("norm3", conv(w, f"{key}.downsample.0", x, stride))
    return F.relu(x + y)


def trunk(w: Weights, key: str, x: Tensor, strides: tuple[int, int, int]) -> Tensor:
    """The first convolution and three stages of two blocks; the strides of the first, the second and the third."""
    y = conv(w, f"{key}.conv1", x, strides[0])
    y = F.relu(batch(w, f"{key}.norm1", y) if f"{key}.norm1.weight" in w else F.instance_norm(y, eps=1e-5))
    for stage, stride in ((1, 1), (2, strides[1]), (3, strides[2])):
        y = residual(w, f"{key}.layer{stage}.1", residual(w, f"{key}.layer{stage}.0", y, stride))
    return y


def heads(w: Weights, names: tuple[str, str, str], finest: Tensor, levels: int) -> tuple[list[Tensor], list[Tensor]]:
    """First states and contexts, the finest first: head 0 of a level gives the state, head 1 the context."""
    hidden, context, x = [], [], finest
    for level in range(levels):
        if level:
            x = residual(w, f"cnet.layer{3 + level}.0", x, 2)
            x = residual(w, f"cnet.layer{3 + level}.1", x)
        for head, found, activation in ((0, hidden, torch.tanh), (1, context, F.relu)):
            key = f"cnet.{names[level]}.{head}"
            # The coarsest level has bare convolutions, the others a block in front of it.
            raw = conv(w, key, x) if level == 2 else conv(w, f"{key}.1", residual(w, f"{key}.0", x))
            found.append(activation(raw))
    return hidden, context


def attentions(w: Weights, context: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The contexts with their channels weighted, and the attention map of each."""
    weighted, maps = [], []
    for c in context:
        pooled = F.adaptive_avg_pool2d(c, 1), F.adaptive_max_pool2d(c, 1)
        scores = [conv(w, "cam.fc.2", F.relu(conv(w, "cam.fc.0", p))) for p in pooled]
        weighted.append(torch.sigmoid(scores[0] + scores[1]) * c)
        planes = [weighted[-1].mean(1, keepdim=True), weighted[-1].max(1, keepdim=True).values]
        maps.append(torch.sigmoid(conv(w, "sam.samconv", torch.cat(planes, dim=1))))
    return weighted, maps


# -------------------------------------------------------------------------------------------------- correlation


def sampled(lines: Tensor, x: Tensor) -> Tensor:
    """``lines (N, C, K)`` read at entries ``x (N, T)`` by bilinear sampling, zeros outside: ``(N, C, T)``."""
    grid = torch.stack([2 * x / (lines.shape[-1] - 1) - 1, torch.zeros_like(x)], dim=-1)
    read = F.grid_sample(lines[:, :, None], grid[:, None], mode="bilinear", padding_mode="zeros", align_corners=True)
    return read[:, :, 0]


def line_lookup(left: Tensor, right: Tensor, flow: Tensor) -> Tensor:
    """Four levels of nine taps around the flow: ``(B, 36, h, w)``."""
    b, channels, h, width = left.shape
    lines = torch.einsum("bcyi,bcyj->byij", left, right).reshape(b * h * width, 1, width) / channels**0.5
    position = (torch.arange(width, dtype=flow.dtype) + flow).reshape(-1, 1)
    reach, found = torch.arange(-4, 5, dtype=flow.dtype), []
    for level in range(4):
        found.append(sampled(lines, position / 2**level + reach).reshape(b, h, width, 9))
        lines = F.avg_pool1d(lines, 2)
    return torch.cat(found, dim=-1).permute(0, 3, 1, 2)


# ---------------------------------------------------------------------------------------------------- iterations


def half(x: Tensor) -> Tensor:
    """To half the size: means of 3x3."""
    return F.avg_pool2d(x, 3, stride=2, padding=1)


def to_size(x: Tensor, like: Tensor) -> Tensor:
    """To the size of another map, corner on corner."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)


def gru(
    w: Weights, key: str, h: Tensor, x: list[Tensor], gates: tuple[Tensor | float, ...] = (0.0, 0.0, 0.0)
) -> Tensor:
    """The recurrent unit of that key; ``gates`` is what the context adds to update, reset and candidate."""
    cz, cr, cq = gates
    z = torch.sigmoid(conv(w, f"{key}.convz", torch.cat([h, *x], dim=1)) + cz)
    r = torch.sigmoid(conv(w, f"{key}.convr", torch.cat([h, *x], dim=1)) + cr)
    q = torch.tanh(conv(w, f"{key}.convq", torch.cat([r * h, *x], dim=1)) + cq)
    return (1 - z) * h + z * q


def selective(w: Weights, key: str, attention: Tensor, h: Tensor, x: list[Tensor]) -> Tensor:
    """The selective unit: the attention is the weight of the small kernel."""
    return attention * gru(w, f"{key}.small_gru", h, x) + (1 - attention) * gru(w, f"{key}.large_gru", h, x)


def motion(w: Weights, looked_up: Tensor, flow: Tensor, of_flow: str = "convf") -> Tensor:
    """What likenesses and flow say: 128 channels, the last are the flow itself."""
    key = "update_block.encoder"
    likeness = F.relu(conv(w, f"{key}.convc2", F.relu(conv(w, f"{key}.convc1", looked_up))))
    moved = F.relu(conv(w, f"{key}.{of_flow}2", F.relu(conv(w, f"{key}.{of_flow}1", flow))))
    return torch.cat([F.relu(conv(w, f"{key}.conv", torch.cat([likeness, moved], dim=1))), flow], dim=1)


def change(w: Weights, head: str, finest: Tensor) -> Tensor:
    """What the finest state asks for."""
    key = f"update_block.{head}"
    return conv(w, f"{key}.conv2", F.relu(conv(w, f"{key}.conv1", finest)))


def upsampled(w: Weights, finest: Tensor, flow: Tensor, factor: int) -> Tensor:
    """Full size: each fine pixel a convex mixture of the nine coarse values around it."""
    b, _, h, width = flow.shape
    mask = 0.25 * conv(w, "update_block.mask.2", F.relu(conv(w, "update_block.mask.0", finest)))
    weights = torch.softmax(mask.view(b, 1, 9, factor, factor, h, width), dim=2)
    around = F.unfold(factor * flow, [3, 3], padding=1).view(b, 1, 9, 1, 1, h, width)
    mixed = (weights * around).sum(dim=2)
    return mixed.permute(0, 1, 4, 2, 5, 3).reshape(b, 1, factor * h, factor * width)


def normalised(image: Tensor) -> Tensor:
    """0..255 to -1..1."""
    return 2 * (image / 255.0) - 1.0


# ------------------------------------------------------------------------------------------------------ networks

NAMES = ("outputs08", "outputs16", "outputs32")
# Strides of the first convolution and of the second and the third stage, which make a stride of 4 and of 8.
QUARTER, EIGHTH = (1, 2, 2), (2, 2, 2)


def raft_stereo(w: Weights, left: Tensor, right: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """The published network of three levels: flow at 1/4 and flow at full size."""
    left, right = normalised(left), normalised(right)
    features = [conv(w, "fnet.conv2", trunk(w, "fnet", image, QUARTER)) for image in (left, right)]
    h, context = heads(w, NAMES, trunk(w, "cnet", left, QUARTER), 3)
    c = [conv(w, f"context_zqr_convs.{level}", x).chunk(3, dim=1) for level, x in enumerate(context)]
    flow = torch.zeros_like(h[0][:, :2])
    for _ in range(iterations):
        looked_up = line_lookup(*features, flow[:, :1])
        h[2] = gru(w, "update_block.gru32", h[2], [half(h[1])], c[2])
        h[1] = gru(w, "update_block.gru16", h[1], [half(h[0]), to_size(h[2], h[1])], c[1])
        h[0] = gru(w, "update_block.gru08", h[0], [motion(w, looked_up, flow), to_size(h[1], h[0])], c[0])
        flow = flow + _along_the_line(change(w, "flow_head", h[0]))
    return flow, upsampled(w, h[0], flow[:, :1], 4)


def realtime(w: Weights, left: Tensor, right: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """The published real-time network: one trunk, stride 8, two levels, the coarser one twice per iteration."""
    finest = [trunk(w, "cnet", normalised(image), EIGHTH) for image in (left, right)]
    features = [conv(w, "conv2.1", residual(w, "conv2.0", x)) for x in finest]
    h, context = heads(w, NAMES, finest[0], 2)
    c = [conv(w, f"context_zqr_convs.{level}", x).chunk(3, dim=1) for level, x in enumerate(context)]
    flow = torch.zeros_like(h[0][:, :2])
    for _ in range(iterations):
        looked_up = line_lookup(*features, flow[:, :1])
        for _ in range(2):
            h[1] = gru(w, "update_block.gru16", h[1], [half(h[0])], c[1])
        h[0] = gru(w, "update_block.gru08", h[0], [motion(w, looked_up, flow), to_size(h[1], h[0])], c[0])
        flow = flow + _along_the_line(change(w, "flow_head", h[0]))
    return flow, upsampled(w, h[0], flow[:, :1], 8)


def _along_the_line(step: Tensor) -> Tensor:
    """A rectified pair moves along its lines alone."""
    return torch.cat([step[:, :1], torch.zeros_like(step[:, 1:])], dim=1)


def selective_raft(w: Weights, left: Tensor, right: Tensor, iterations: int, layers: int = 3) -> tuple[Tensor, ...]:
    """Selective-RAFT: flow at 1/4, flow at full size, the attention maps, all flows at full size."""
    left, right = normalised(left), normalised(right)
    features = [conv(w, "fnet.conv2", trunk(w, "fnet", image, QUARTER)) for image in (left, right)]
    h, context = heads(w, NAMES, trunk(w, "cnet", left, QUARTER), layers)
    c, a = attentions(w, context)
    flow, every = torch.zeros_like(h[0][:, :1]), []
    for _ in range(iterations):
        given = [motion(w, line_lookup(*features, flow), flow)]
        if layers > 2:
            h[2] = selective(w, "update_block.gru16", a[2], h[2], [c[2], half(h[1])])
        if layers > 1:
            below = [to_size(h[2], h[1])] if layers > 2 else []
            h[1] = selective(w, "update_block.gru08", a[1], h[1], [c[1], half(h[0]), *below])
            given.append(to_size(h[1], h[0]))
        h[0] = selective(w, "update_block.gru04", a[0], h[0], [c[0], *given])
        flow = flow + change(w, "disp_head", h[0])
        every.append(upsampled(w, h[0], flow, 4))
    return flow, every[-1], *a, torch.cat(every)
