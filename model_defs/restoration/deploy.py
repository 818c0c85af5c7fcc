"""Restormer's blocks rewritten for deployment: the same functions without splits, transposes and large divisions.

Runtimes keep the feature maps of convolutions in blocked layouts; splitting one by channels, or moving its channel
axis for a normalisation, costs as much as the convolution itself. Every step here is an identity of real arithmetic;
weights are merged in float64 and rounded once.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import MDTA, ChannelNorm, ConvGatedFFN, TransformerBlock, merge_heads, split_heads
from .network import Restormer

SHORTEST = 1e-12
"""Below this a vector's length is not divided by, as in ``torch.nn.functional.normalize``."""


class Normalise(nn.Module):
    """The normalisation of a :class:`ChannelNorm` without its scale and bias, over the channel axis where it is.

    Args:
        norm: The published normalisation.
    """

    def __init__(self, norm: ChannelNorm) -> None:
        super().__init__()
        self.centred = norm.body.bias is not None
        self.eps = norm.body.eps

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, H, W)."""
        centre = x - x.mean(1, keepdim=True)
        scale = torch.rsqrt((centre * centre).mean(1, keepdim=True) + self.eps)
        return (centre if self.centred else x) * scale


def after_norm(conv: nn.Conv2d, norm: ChannelNorm | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a 1 x 1 convolution that takes over a normalisation's scale ``g`` and bias ``b``.

    ``W (g n + b) + c = (W g) n + (W b + c)``.

    Args:
        conv: The convolution.
        norm: The normalisation before it, or None.
    """
    weight, bias = conv.weight, conv.bias
    if norm is None:
        return weight, bias
    if norm.body.bias is not None:
        shift = weight[:, :, 0, 0] @ norm.body.bias
        bias = shift if bias is None else bias + shift
    return weight * norm.body.weight[:, None, None], bias


def convolution(weight: Tensor, bias: Tensor | None, groups: int = 1) -> nn.Conv2d:
    """A convolution of stride 1 that keeps the size, from weight (out, in / groups, k, k) and bias."""
    size = weight.shape[-1]
    conv = nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], size, padding=size // 2, groups=groups, bias=bias is not None
    )
    conv.weight = nn.Parameter(weight.contiguous())
    conv.bias = None if bias is None else nn.Parameter(bias.contiguous())
    return conv


def split_pair(first: nn.Conv2d, depthwise: nn.Conv2d, count: int, norm: ChannelNorm | None) -> nn.ModuleList:
    """Splits a 1 x 1 and a depthwise convolution by output channels into ``count`` independent pairs."""
    weight, bias = after_norm(first, norm)
    parts = [weight.chunk(count), *(_chunks(tensor, count) for tensor in (bias, depthwise.weight, depthwise.bias))]
    return nn.ModuleList(
        nn.Sequential(convolution(w, b), convolution(deep, deep_bias, groups=len(deep)))
        for w, b, deep, deep_bias in zip(*parts, strict=True)
    )


def _chunks(tensor: Tensor | None, count: int) -> tuple[Tensor | None, ...]:
    return (None,) * count if tensor is None else tensor.chunk(count)


class DeployedFFN(nn.Module):
    """A GDFN whose activated half and gate have convolutions of their own.

    Args:
        ffn: The published one.
        norm: The normalisation before it, whose scale and bias it takes over.
    """

    def __init__(self, ffn: ConvGatedFFN, norm: ChannelNorm | None = None) -> None:
        super().__init__()
        self.activated, self.gate = split_pair(ffn.project_in, ffn.dwconv, 2, norm)
        self.project_out = copy.deepcopy(ffn.project_out)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, H, W)."""
        return self.project_out(F.gelu(self.activated(x)) * self.gate(x))


class DeployedMDTA(nn.Module):
    """An MDTA whose queries, keys and values have convolutions of their own.

    ``(q / |q|) (k / |k|)^T = (q k^T) / (|q| |k|^T)``: the division is on (c, c) scores and not on two images.

    Args:
        attention: The published one.
        norm: The normalisation before it, whose scale and bias it takes over.
    """

    def __init__(self, attention: MDTA, norm: ChannelNorm | None = None) -> None:
        super().__init__()
        self.heads = attention.heads
        self.temperature = nn.Parameter(attention.temperature.clone())
        self.query, self.key, self.value = split_pair(attention.qkv, attention.qkv_dwconv, 3, norm)
        self.project_out = copy.deepcopy(attention.project_out)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, H, W)."""
        q, k, v = (split_heads(part(x), self.heads) for part in (self.query, self.key, self.value))
        q_length, k_length = (torch.linalg.vector_norm(part, dim=-1).clamp_min(SHORTEST) for part in (q, k))
        lengths = q_length.unsqueeze(-1) * k_length.unsqueeze(-2)
        scores = (q @ k.transpose(-2, -1) * (self.temperature / lengths)).softmax(dim=-1)
        return self.project_out(merge_heads(scores @ v, x))


class DeployedBlock(nn.Module):
    """A transformer block of the deployed parts.

    Args:
        block: The published one.
    """

    def __init__(self, block: TransformerBlock) -> None:
        super().__init__()
        self.norm1, self.norm2 = Normalise(block.norm1), Normalise(block.norm2)
        self.attn = DeployedMDTA(block.attn, block.norm1)
        self.ffn = DeployedFFN(block.ffn, block.norm2)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, H, W)."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


def with_deployed_blocks(network: Restormer) -> Restormer:
    """The network with every transformer block in its deployed form."""
    for level in network.children():
        if isinstance(level, nn.Sequential):
            for index, block in enumerate(level):
                level[index] = DeployedBlock(block)
    return network


def _deploy(form: Callable[..., nn.Module], module: nn.Module) -> nn.Module:
    """Builds a deployed form in float64 and casts it to the module's type."""
    dtype = next(module.parameters()).dtype
    with torch.no_grad():
        deployed = form(copy.deepcopy(module).eval().double()).to(dtype)
    return deployed.requires_grad_(False).eval()


def deploy_ffn(ffn: ConvGatedFFN) -> nn.Module:
    """A GDFN for deployment; the given one is left as it is."""
    return _deploy(DeployedFFN, ffn)


def deploy_mdta(attention: MDTA) -> nn.Module:
    """An MDTA for deployment; the given one is left as it is."""
    return _deploy(DeployedMDTA, attention)


def deploy_restormer(network: Restormer) -> nn.Module:
    """A Restormer for deployment; the given one is left as it is."""
    return _deploy(with_deployed_blocks, network)
