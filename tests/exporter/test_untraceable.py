"""Why a module does not become a graph: its kind, the user's own line, and the smallest part that fails alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter import trace
from exporter.errors import NotProven
from exporter.spec import ModelDef
from exporter.spec import Tensor as Spec
from exporter.untraceable import untraceable


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x + 1
        return x - 1


class Counts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        count = int(x.abs().sum().item())
        return x[:count]


class Loops(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while x.abs().max() > 1:
            x = x / 2
        return x


class Decomposes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svd(x)[0]


class Leaves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(np.sin(x.numpy()))


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("a table that was never made")


class Around(nn.Module):
    """What fails, three modules deep, beside others that do not."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.body = nn.ModuleList([nn.Linear(4, 4), nn.Sequential(nn.ReLU(), inner)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for part in self.body:
            x = part(x)
        return x


def failing(module: nn.Module, folder: Path) -> NotProven:
    it = ModelDef("it", "own", lambda: module, (Spec("x", (4, 4)),), (Spec("y", (4, 4)),), "", "")
    with pytest.raises(NotProven) as caught:
        trace.trace(it, module.eval(), folder / "it.onnx")
    assert not (folder / "it.onnx").exists()
    return caught.value


def test_a_part_that_is_torchscript_is_named(tmp_path: Path) -> None:
    """PyTorch says of it that forward was given an argument too many."""
    error = failing(Around(torch.jit.script(nn.Linear(4, 4))), tmp_path)
    assert error.code == "scripted-part" and error.what == "body.1.1 is a TorchScript module"
    assert "state_dict" in error.next and error.why


@pytest.mark.parametrize(
    ("inner", "code", "line"),
    [
        (Branches, "data-dependent", "if x.sum() > 0:"),
        (Counts, "data-dependent", "count = int(x.abs().sum().item())"),
        (Loops, "data-dependent", "while x.abs().max() > 1:"),
        (Decomposes, "missing-operator", "return torch.linalg.svd(x)[0]"),
        (Leaves, "leaves-torch", "return torch.from_numpy(np.sin(x.numpy()))"),
        (Fails, "trace-failed", 'raise KeyError("a table that was never made")'),
    ],
)
def test_the_kind_the_line_and_the_smallest_part(
    inner: type[nn.Module], code: str, line: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    error = failing(Around(inner()), tmp_path)
    assert error.code == code and line in error.where and "test_untraceable.py:" in error.where
    assert f"smallest part that fails: body.1.1 ({inner.__name__})" in error.where
    assert error.why and error.next and "\x1b" not in error.what and "\n" not in error.what
    if code == "missing-operator":
        assert error.what == "there is no way to write aten._linalg_svd.default in ONNX"
    assert "Traceback (most recent call last)" in capfd.readouterr().err, "the log has all of it"


def test_a_part_that_works_alone_is_not_blamed(tmp_path: Path) -> None:
    """The error comes up inside ``body``, for what the model around it does: nothing smaller fails."""

    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x) if x.sum() > 0 else x

    error = failing(Wrong(), tmp_path)
    assert error.code == "data-dependent" and "smallest part" not in error.where


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError("cannot allocate"), "too-large"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"), "too-large"),
        (ValueError("The proto size is larger than: exceeds maximum protobuf size of 2GB"), "too-large"),
        (NotImplementedError("'linear' not implemented for 'ComplexFloat'"), "unsupported-dtype"),
        (ValueError("something else"), "trace-failed"),
    ],
)
def test_other_kinds_by_their_words(error: Exception, code: str) -> None:
    assert untraceable("it", nn.Identity(), (), error).code == code


def test_an_error_of_ours_at_the_bottom_is_the_one() -> None:
    ours = NotProven("dim-specialised", "dim T froze", next="--dim T=3")
    outer = RuntimeError("while tracing")
    outer.__cause__ = ours
    assert untraceable("it", nn.Identity(), (), outer) is ours and "model it" in ours.where
