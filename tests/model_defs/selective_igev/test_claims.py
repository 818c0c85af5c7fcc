"""What is said of Selective-IGEV in numbers, counted."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from exporter import registry


def macs(iterations: int) -> int:
    """Multiplications of convolutions and matrix products for one pair of 256 x 320; nothing is computed."""
    with torch.device("meta"):
        network = registry.model("selective-igev", {"iterations": iterations}).build().eval()
        image = torch.zeros(1, 3, 256, 320)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image, image)
    return counter.get_total_flops() // 2


def test_it_takes_35_5_gmacs_and_16_0_per_iteration() -> None:
    """Counter: PyTorch's ``FlopCounterMode`` over two, convolutions and matrix products alone."""
    one, two = macs(1), macs(2)
    each = two - one
    assert round((one - each) / 1e9, 1) == 35.5
    assert round(each / 1e9, 1) == 16.0
    assert round((one + 31 * each) / 1e9) == 546


def test_it_is_larger_than_selective_raft(network: nn.Module) -> None:
    """Notes give 11.65 million, which is Selective-RAFT's: Selective-IGEV has 13.14."""
    with torch.device("meta"):
        other = registry.model("selective-raft").build()
    millions = [round(sum(p.numel() for p in n.parameters()) / 1e6, 2) for n in (network, other)]
    assert millions == [13.14, 11.65]


def test_no_weight_depends_on_the_largest_disparity() -> None:
    """192 and the 768 of the Middlebury checkpoint load the same keys and shapes."""
    with torch.device("meta"):
        near, far = (registry.model("selective-igev", {"max_disparity": d}).build() for d in (192, 768))
    shapes = [{name: tensor.shape for name, tensor in n.state_dict().items()} for n in (near, far)]
    assert shapes[0] == shapes[1]
    assert (near.disparities, far.disparities) == (48, 192)
