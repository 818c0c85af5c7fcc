"""The yardstick of a lower precision against PyTorch's own half precision, on blocks small enough to run it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from exporter.lowered_eager import TYPES, rounded, rounded_module, rounding, to_tf32


def emulated(module: nn.Module, x: torch.Tensor, precision: str) -> torch.Tensor:
    with torch.inference_mode(), rounding(precision):
        return rounded_module(module, precision)(rounded(x, TYPES[precision]))


BLOCKS = {
    "linear": nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64)),
    "conv": nn.Sequential(nn.Conv2d(4, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 1)),
    "norm": nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.Softmax(-1)),
    "attention": nn.TransformerEncoderLayer(64, 4, 64, dropout=0.0, batch_first=True),
    "gru": nn.GRU(64, 32, batch_first=True),
}


@pytest.mark.parametrize("precision", TYPES)
@pytest.mark.parametrize("name", BLOCKS)
def test_it_is_as_far_off_as_pytorch_in_that_precision(name: str, precision: str) -> None:
    """Within a factor of two of the real thing, which is what the bound of its rung allows on top."""
    torch.manual_seed(0)
    module = copy.deepcopy(BLOCKS[name]).eval()
    x = torch.randn(2, 4, 16, 16) if name == "conv" else torch.randn(2, 12, 64)
    kind = TYPES[precision]
    with torch.inference_mode():
        exact = first(copy.deepcopy(module).double()(x.double()))
        real = first(copy.deepcopy(module).to(kind)(x.to(kind))).double()
    found = first(emulated(module, x, precision)).double()
    ratio = ((found - exact).norm() / (real - exact).norm()).item()
    assert 0.5 < ratio < 2.0


def first(outputs: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return outputs[0] if isinstance(outputs, tuple) else outputs


class Steps(nn.Module):
    """A view, an operation in place, and a plain one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.reshape(-1) * 1.0001
        y[1:].mul_(1.0001)
        return y + 0.0001


def test_operations_in_place_are_rounded_as_well() -> None:
    x = torch.linspace(1, 2, 8, dtype=torch.float32)
    y = emulated(Steps(), x, "bf16")
    assert torch.equal(y, y.to(torch.bfloat16).float())


def test_a_tensor_that_would_overflow_stays_as_it_is() -> None:
    huge = torch.tensor([1.0, 1e5])
    assert torch.equal(rounded(huge, torch.float16), huge)
    assert torch.equal(rounded(torch.tensor([1.0001]), torch.float16), torch.tensor([1.0]))
    endless = torch.tensor([float("inf"), 1.0001])
    assert torch.equal(rounded(endless, torch.float16), torch.tensor([float("inf"), 1.0])), "it was so in float32"


def test_outside_nothing_is_rounded() -> None:
    x = torch.tensor([1.0001])
    with rounding("fp16"):
        pass
    assert torch.equal(x * 1.0, x)


# ---------------------------------------------------------------------------------------------------------- TF32


def test_tf32_has_ten_bits_and_rounds_ties_to_even() -> None:
    step = 2.0**-10
    given = torch.tensor([1.0, 1 + step, 1 + step / 2, 1 + 3 * step / 2, 1 + step / 2 + 2**-20, -1 - step / 2])
    wanted = torch.tensor([1.0, 1 + step, 1.0, 1 + 2 * step, 1 + step, -1.0])
    assert torch.equal(to_tf32(given), wanted)
    special = torch.tensor([torch.inf, -torch.inf, 0.0, -0.0, 2.0**-130])
    assert torch.equal(to_tf32(special)[:4], special[:4])
    assert to_tf32(torch.tensor([torch.nan])).isnan().all()


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(64, 32), nn.Conv1d(64, 32, 3), nn.Conv2d(64, 32, 1), nn.GRU(64, 32)],
    ids=lambda m: type(m).__name__,
)
def test_in_tf32_products_are_rounded_and_sums_are_not(layer: nn.Module) -> None:
    torch.manual_seed(0)
    shape = {nn.Conv1d: (1, 64, 9), nn.Conv2d: (1, 64, 4, 4)}.get(type(layer), (5, 64))
    x = torch.randn(shape)

    def first(out: object) -> torch.Tensor:
        return out[0] if isinstance(out, tuple) else out  # type: ignore[index, return-value]

    with torch.no_grad():
        exact = first(copy.deepcopy(layer).double()(x.double()))
        plain = first(layer(x))
        module = rounded_module(layer, "tf32")
        assert all(torch.equal(a, b) for a, b in zip(module.parameters(), layer.parameters(), strict=True))
        with rounding("tf32"):
            low = first(module(x))
            total = x.sum()
    assert total == x.sum(), "a sum has all its bits"

    def error(y: torch.Tensor) -> float:
        return float((y.double() - exact).norm() / exact.norm())

    assert error(plain) < 2**-20 and 2**-14 < error(low) < 2**-9
