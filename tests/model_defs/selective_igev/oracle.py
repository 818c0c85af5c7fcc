"""Selective-IGEV as plain functions of a state dict, to hold the network's wiring against.

Nothing here comes from the definitions: every layer is read by its key, the volume is filled in a loop, and sampling
and unfolding are in their textbook form. Sources: Wang et al., "Selective-Stereo", CVPR 2024; Xu et al., "Iterative
Geometry Encoding Volume", CVPR 2023; Sandler et al., "MobileNetV2", CVPR 2018; keys and shapes of the checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.model_defs.stereo.oracle import (
    QUARTER,
    Weights,
    attentions,
    batch,
    change,
    conv,
    half,
    heads,
    motion,
    normalised,
    sampled,
    selective,
    to_size,
    trunk,
)

# ------------------------------------------------------------------------------------------------------- layers


def doubled(w: Weights, key: str, x: Tensor) -> Tensor:
    """The transposed convolution of that key, which doubles every size."""
    weight = w[f"{key}.weight"]
    apply = {4: F.conv_transpose2d, 5: F.conv_transpose3d}[weight.dim()]
    return apply(x, weight, w.get(f"{key}.bias"), stride=2, padding=1)


def normed(w: Weights, key: str, x: Tensor, stride: int = 1, up: bool = False) -> Tensor:
    """Convolution ``conv``, normalisation by batch if there is a ``bn`` and else by instance, leaky ReLU."""
    y = doubled(w, f"{key}.conv", x) if up else conv(w, f"{key}.conv", x, stride)
    y = batch(w, f"{key}.bn", y) if f"{key}.bn.weight" in w else F.instance_norm(y, eps=1e-5)
    return F.leaky_relu(y, 0.01)


def joined(w: Weights, key: str, coarse: Tensor, fine: Tensor) -> Tensor:
    """The coarse map doubled, the fine one behind it, mixed."""
    return normed(w, f"{key}.conv2", torch.cat([normed(w, f"{key}.conv1", coarse, up=True), fine], dim=1))


def stem(w: Weights, key: str, x: Tensor) -> Tensor:
    """Two convolutions, the first halves the size."""
    return F.relu(F.instance_norm(conv(w, f"{key}.1", normed(w, f"{key}.0", x, 2)), eps=1e-5))


# ----------------------------------------------------------------------------------------------------- features


def depthwise(w: Weights, key: str, norm: str, x: Tensor, stride: int) -> Tensor:
    """Each channel on its own."""
    return F.relu6(batch(w, norm, conv(w, key, x, stride, groups=x.shape[1])))


def inverted(w: Weights, key: str, x: Tensor, stride: int) -> Tensor:
    """MobileNetV2's block: expanded, depthwise, projected."""
    y = F.relu6(batch(w, f"{key}.bn1", conv(w, f"{key}.conv_pw", x)))
    y = depthwise(w, f"{key}.conv_dw", f"{key}.bn2", y, stride)
    y = batch(w, f"{key}.bn3", conv(w, f"{key}.conv_pwl", y))
    return x + y if stride == 1 and x.shape == y.shape else y


def features(w: Weights, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """MobileNetV2 to stride 32 and back up: maps at strides 4, 8, 16 and 32."""
    y = F.relu6(batch(w, "feature.bn1", conv(w, "feature.conv_stem", image, 2)))
    key = "feature.block0.0.0"
    y = depthwise(w, f"{key}.conv_dw", f"{key}.bn1", y, 1)
    y = batch(w, f"{key}.bn2", conv(w, f"{key}.conv_pw", y))
    found = []
    stages = [("block1.0", 2, 2), ("block2.0", 2, 3), ("block3.0", 2, 4), ("block3.1", 1, 3), ("block4.0", 2, 3)]
    for stage, stride, blocks in stages:
        for at in range(blocks):
            y = inverted(w, f"feature.{stage}.{at}", y, stride if at == 0 else 1)
        found.append(y)
    x4, x8, _, x16, x32 = found
    y16 = joined(w, "feature.deconv32_16", x32, x16)
    y8 = joined(w, "feature.deconv16_8", y16, x8)
    y4 = normed(w, "feature.conv4", joined(w, "feature.deconv8_4", y8, x4))
    return y4, y8, y16, x32


# ------------------------------------------------------------------------------------------------------- volume


def group_wise(left: Tensor, right: Tensor, disparities: int) -> Tensor:
    """Eight groups' mean products at each disparity; 0 before the image."""
    b, channels, h, width = left.shape
    volume = torch.zeros(b, 8, disparities, h, width, dtype=left.dtype)
    for d in range(min(disparities, width)):
        products = left[..., d:] * right[..., : width - d]
        volume[:, :, d, :, d:] = products.reshape(b, 8, channels // 8, h, width - d).mean(2)
    return volume


def gated(w: Weights, key: str, volume: Tensor, feature: Tensor) -> Tensor:
    """Every disparity scaled by the image feature at its pixel."""
    gate = conv(w, f"{key}.feat_att.1", normed(w, f"{key}.feat_att.0", feature))
    return torch.sigmoid(gate)[:, :, None] * volume


def aggregated(w: Weights, volume: Tensor, f8: Tensor, f16: Tensor, f32: Tensor) -> Tensor:
    """The hourglass over disparity, height and width."""

    def down(name: str, x: Tensor, feature: Tensor, gate: str) -> Tensor:
        y = normed(w, f"cost_agg.{name}.1", normed(w, f"cost_agg.{name}.0", x, 2))
        return gated(w, f"cost_agg.{gate}", y, feature)

    def up(name: str, mix: str, x: Tensor, skip: Tensor, feature: Tensor, gate: str) -> Tensor:
        y = torch.cat([normed(w, f"cost_agg.{name}", x, up=True), skip], dim=1)
        for layer in range(3):
            y = normed(w, f"cost_agg.{mix}.{layer}", y)
        return gated(w, f"cost_agg.{gate}", y, feature)

    x8 = down("conv1", volume, f8, "feature_att_8")
    x16 = down("conv2", x8, f16, "feature_att_16")
    x32 = down("conv3", x16, f32, "feature_att_32")
    y16 = up("conv3_up", "agg_0", x32, x16, f16, "feature_att_up_16")
    y8 = up("conv2_up", "agg_1", y16, x8, f8, "feature_att_up_8")
    return doubled(w, "cost_agg.conv1_up.conv", y8)


def lookup(geometry: Tensor, left: Tensor, right: Tensor, disparity: Tensor) -> Tensor:
    """Two levels, each eight groups by nine disparities of the geometry and nine columns of the likeness."""
    b, groups, depth, h, width = geometry.shape
    volumes = geometry.permute(0, 3, 4, 1, 2).reshape(-1, groups, depth)
    lines = torch.einsum("bcyi,bcyj->byij", left, right).reshape(-1, 1, width)
    at, column = disparity.reshape(-1, 1), torch.arange(width, dtype=disparity.dtype).expand(b, h, width).reshape(-1, 1)
    reach, found = torch.arange(-4, 5, dtype=disparity.dtype), []
    for level in range(2):
        scale = 2**level
        of_geometry = sampled(volumes, at / scale + reach).reshape(b, h, width, 9 * groups)
        of_lines = sampled(lines, column / scale - at / scale + reach).reshape(b, h, width, 9)
        found += [of_geometry, of_lines]
        volumes, lines = F.avg_pool1d(volumes, 2), F.avg_pool1d(lines, 2)
    return torch.cat(found, dim=-1).permute(0, 3, 1, 2)


# ------------------------------------------------------------------------------------------------------ network


def upsampled(w: Weights, mask_features: Tensor, stem2: Tensor, disparity: Tensor) -> Tensor:
    """Full size: each pixel a mixture of the nine disparities around its coarse pixel, four times as large."""
    b, _, h, width = disparity.shape
    scores = doubled(w, "spx_gru.0", joined(w, "spx_2_gru", mask_features, stem2))
    around = F.unfold(4 * disparity, 3, padding=1).reshape(b, 9, h, width)
    around = F.interpolate(around, size=(4 * h, 4 * width), mode="nearest")
    return (torch.softmax(scores, dim=1) * around).sum(1, keepdim=True)


def selective_igev(
    w: Weights, left: Tensor, right: Tensor, iterations: int, max_disparity: int = 192
) -> tuple[Tensor, ...]:
    """Selective-IGEV: the disparity at full size, and the attention maps."""
    left, right = normalised(left), normalised(right)
    of_left, of_right = features(w, left), features(w, right)
    stem2 = stem(w, "stem_2", left)
    x4 = torch.cat([of_left[0], stem(w, "stem_4", stem2)], dim=1)
    y4 = torch.cat([of_right[0], stem(w, "stem_4", stem(w, "stem_2", right))], dim=1)
    match = [conv(w, "desc", normed(w, "conv", x)) for x in (x4, y4)]
    volume = normed(w, "corr_stem", group_wise(*match, max_disparity // 4))
    geometry = aggregated(w, gated(w, "corr_feature_att", volume, x4), *of_left[1:])
    probability = torch.softmax(conv(w, "classifier", geometry)[:, 0], dim=1)
    planes = torch.arange(max_disparity // 4, dtype=left.dtype)
    disparity = torch.einsum("bdyx,d->byx", probability, planes)[:, None]
    h, context = heads(w, ("outputs04", "outputs08", "outputs16"), trunk(w, "cnet", left, QUARTER), 3)
    c, a = attentions(w, context)
    for _ in range(iterations):
        moved = motion(w, lookup(geometry, *match, disparity), disparity, "convd")
        h[2] = selective(w, "update_block.gru16", a[2], h[2], [c[2], half(h[1])])
        h[1] = selective(w, "update_block.gru08", a[1], h[1], [c[1], half(h[0]), to_size(h[2], h[1])])
        h[0] = selective(w, "update_block.gru04", a[0], h[0], [c[0], moved, to_size(h[1], h[0])])
        disparity = disparity + change(w, "disp_head", h[0])
    mask_features = 0.25 * F.relu(conv(w, "update_block.mask_feat_4.0", h[0]))
    return upsampled(w, mask_features, stem2, disparity), *a
