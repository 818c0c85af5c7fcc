"""A module of large weights is turned to float64 and back in its place; nothing that is computed shows it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from exporter import define, reference, registry
from exporter.errors import NotProven
from exporter.spec import Dim, ModelDef, State, Stream, Tensor
from tests.fakes.lab import Silent


class Mixed(nn.Module):
    """Types of all kinds, a weight that two layers share, a buffer that is none, and norms that a seed leaves faint."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.norms = nn.ModuleList(nn.BatchNorm1d(4) for _ in range(3))
        self.exact = nn.Parameter(torch.full((4,), 0.1, dtype=torch.float64))
        self.register_buffer("rough", torch.full((4,), 0.3, dtype=torch.float16))
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("nothing", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm in self.norms:
            x = norm(self.second(self.first(x)) * 1e-3)
        return x + self.exact.to(x.dtype) + self.rough.to(x.dtype) * self.count


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORTER_EXTERNAL_FROM", "1")


def test_to_float64_and_back_is_exact() -> None:
    module = Mixed()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    turning = define.Turning(module)
    turning.back()  # nothing was turned
    turning.to_double()
    turning.to_double()
    floats = [v for v in module.state_dict().values() if v.is_floating_point()]
    assert all(value.dtype == torch.float64 for value in floats)
    assert module.first.weight is module.second.weight
    turning.back()
    after = module.state_dict()
    assert {n: v.dtype for n, v in after.items()} == {n: v.dtype for n, v in before.items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert module.first.weight is module.second.weight and module.nothing is None


def test_a_large_module_is_turned_and_a_small_one_copied(large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Mixed()
    with define.in_double(module) as double:
        assert double is module and module.exact.dtype == module.first.weight.dtype == torch.float64
    assert module.first.weight.dtype == torch.float32
    monkeypatch.delenv("EXPORTER_EXTERNAL_FROM")
    with define.in_double(module) as double:
        assert double is not module and module.first.weight.dtype == torch.float32


def steps() -> ModelDef:
    """A model with state: eager and reference run in turns, step by step."""

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            h = self.cell(torch.cat([x[:, 0], h], 1)).tanh()
            return h[:, None] * 2, h

    inputs, outputs = (Tensor("x", (1, 1, 4)), Tensor("h", (1, 4))), (Tensor("y", (1, 1, 4)), Tensor("g", (1, 4)))
    return ModelDef("fake", "fake", Steps, inputs, outputs, "s", "l", state=(State("h", "g"),),
                    stream=Stream("x", "y", 1, 6))  # fmt: skip


def mixed() -> ModelDef:
    inputs, outputs = (Tensor("x", ("N", 4)),), (Tensor("y", ("N", 4)),)
    return ModelDef("fake", "fake", Mixed, inputs, outputs, "s", "l", dims=(Dim("N", 2, 5, 9),))


@pytest.mark.parametrize("definition", [mixed(), steps()], ids=["mixed", "steps"])
def test_references_are_the_same_to_the_byte(
    definition: ModelDef, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(registry, "model", lambda name, options=None: definition)
    build = {"model": "fake", "options": {}, "dims": [], "checkpoint": None, "seed": 0}
    found: list[Any] = []
    for name, size in (("copied", ""), ("turned", "1")):
        monkeypatch.setenv("EXPORTER_EXTERNAL_FROM", size)
        folder = tmp_path / name / "cases"
        folder.mkdir(parents=True)
        request = {"build": build, "samples": [], "folder": str(folder), "planned": True}
        made = reference.write_cases(request, Silent())  # type: ignore[arg-type]
        yard = {**request, "precision": "bf16", "cases": made["cases"], "file": str(folder / "yard.safetensors")}
        reference.write_yardstick(yard, Silent())  # type: ignore[arg-type]
        assert made["reference"] == "float64"
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        found.append((files, made["weights"], made["parameters"]))
    assert found[0] == found[1] and len(found[0][0]) > 2


def test_weights_of_float64_alone_are_refused_before_anything_is_made() -> None:
    definition = replace(mixed(), build=lambda: nn.Linear(4, 4).double())
    with pytest.raises(NotProven, match="the weights are float64") as error:
        define.weighted(definition, None, 0)
    assert error.value.code == "unsupported-dtype" and ".float()" in error.value.next
    define.weighted(mixed(), None, 0)
