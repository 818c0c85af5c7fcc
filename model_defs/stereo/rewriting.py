"""What rewriting a network for deployment takes in both stereo families: a copy in float64, and folded norms."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)

# Which batch normalisation stands behind which convolution, by the class of their owner. Names, not classes: a file
# that was loaded under two module names has two of each class.
BEHIND = {
    "ResidualBlock": {"conv1": "norm1", "conv2": "norm2", "downsample.0": "downsample.1"},
    "ContextNetwork": {"conv1": "norm1"},
}
BATCH_NORMS = nn.BatchNorm2d | nn.BatchNorm3d


def in_float64(network: Network, rewrite: Callable[[Network], None]) -> Network:
    """A rewritten copy in eval mode, its weights merged in float64 and rounded once to the type they came in."""
    dtype = next(network.parameters()).dtype
    deployed = copy.deepcopy(network).double().eval()
    rewrite(deployed)
    return deployed.to(dtype).eval()


def fold_batch_norms(module: nn.Module, behind: dict[str, dict[str, str]] = BEHIND) -> None:
    """``bn(W x + b)`` as one convolution, in place, wherever ``behind`` says that the two follow one another.

    Args:
        module: in eval mode.
        behind: by the name of a class, the normalisation behind each convolution.
    """
    for owner in list(module.modules()):
        for conv, norm in behind.get(type(owner).__name__, {}).items():
            there = dict(owner.named_modules(remove_duplicate=False))
            # A block of one size has no shortcut, and norms by instance stay.
            if isinstance(there.get(norm), BATCH_NORMS):
                transposed = isinstance(there[conv], nn.ConvTranspose2d | nn.ConvTranspose3d)
                owner.set_submodule(conv, fuse_conv_bn_eval(there[conv], there[norm], transpose=transposed))
                _replace(owner, there[norm])


def _replace(owner: nn.Module, norm: nn.Module) -> None:
    """An identity under every name that the normalisation has: a shortcut's has two."""
    names = [name for name, part in owner.named_modules(remove_duplicate=False) if part is norm]
    for name in names:
        owner.set_submodule(name, nn.Identity())
