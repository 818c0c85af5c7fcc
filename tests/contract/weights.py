"""How far a change of one weight tensor moves what a model gives: by its gradient first, then by running it.

A deep network has hundreds of tensors and a float64 run of it takes seconds. The gradients of a few random directions
of the outputs tell for all tensors at once how far a change of 1 % moves a case. What they put far above the rung is
seen; everything else is run, on the cases that it moves most.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_leaves

from exporter import define
from exporter.bundle import read_tensors, under
from exporter.parity.cases import Case
from exporter.parity.ladder import UNIT_ROUNDOFF
from exporter.parity.measure import l2
from exporter.reference import _Runs
from tests.fakes.lab import Specimen

CHANGE = 1.01
# An estimate of four directions lies within a factor of four of the truth but once in thousands of times.
DIRECTIONS, CERTAIN = 4, 16.0
RUN_ON = 2


class Weights:
    """The weight tensors of a specimen's float64 reference, and what a change of each does.

    Attributes:
        names: of every tensor that holds floats.
    """

    def __init__(self, it: Specimen) -> None:
        torch.set_num_threads(1)
        self._it = it
        module = define.eager(it.build)
        self._module = copy.deepcopy(module).double()
        self._runs = _Runs(it.definition, module, self._module, "float64")
        self._state = self._module.state_dict()
        self.names = [name for name, value in self._state.items() if value.is_floating_point()]
        self._cases = sorted(it.reference["cases"], key=lambda c: (c["steps"], sum(c["sizes"].values())))
        self._tensors = {case["name"]: read_tensors(Path(case["file"])) for case in self._cases}
        self._floors = self._noise_floors()
        single = [case for case in self._cases if case["steps"] == 1]
        self._estimates = {case["name"]: self._estimated(case) for case in single}

    def moves(self, name: str | None, case: Mapping[str, Any] | None = None) -> float:
        """The amplification that a change of one tensor (of none) shows in one case, the first by default."""
        if name is None:
            return self._amplification(case or self._cases[0])
        kept = self._state[name].clone()
        self._state[name].mul_(CHANGE)
        try:
            return self._amplification(case or self._cases[0])
        finally:
            self._state[name].copy_(kept)

    def seen(self, name: str, bound: float) -> bool:
        """Whether some case shows a change of the tensor beyond the bound."""
        estimates = {case: found.get(name, 0.0) for case, found in self._estimates.items()}
        if max(estimates.values(), default=0.0) > CERTAIN * bound:
            return True
        single = [case for case in self._cases if case["steps"] == 1]
        sequences = [case for case in self._cases if case["steps"] > 1]
        likely = sorted(single, key=lambda case: -estimates[case["name"]])[:RUN_ON]
        return any(self.moves(name, case) > bound for case in (*likely, *sequences))

    def _noise_floors(self) -> dict[tuple[str, str], float]:
        floors: dict[tuple[str, str], float] = {}
        for case in self._cases:
            for tensor in self._it.definition.outputs:
                key = tensor.name, case["scale"]
                noise = float(self._tensors[case["name"]][f"noise/{tensor.name}"][0])
                floors[key] = max(floors.get(key, UNIT_ROUNDOFF["fp32"]), noise)
        return floors

    def _amplification(self, case: Mapping[str, Any]) -> float:
        tensors = self._tensors[case["name"]]
        plain = Case(case["name"], case["kind"], case["scale"], case["sizes"], case["steps"])
        outputs = self._runs.reference(plain, under(tensors, "input/"))
        figures = []
        for output, y in outputs.items():
            y64 = tensors[f"reference/{output}"]
            size = l2(y64)
            figures.append(l2(y - y64) / size / self._floors[output, case["scale"]] if size else 0.0)
        return max(figures)

    def _estimated(self, case: Mapping[str, Any]) -> dict[str, float]:
        """Per tensor the amplification that its gradient promises, the largest over the outputs."""
        tensors = self._tensors[case["name"]]
        # One leaf per tensor: some have two names.
        made = {self._state[n].data_ptr(): self._state[n].detach().clone().requires_grad_() for n in self.names}
        leaves = {n: made[self._state[n].data_ptr()] for n in self.names}
        found = dict.fromkeys(self.names, 0.0)
        for output, value in self._outputs(leaves, under(tensors, "input/")).items():
            size = l2(tensors[f"reference/{output}"])
            if not value.requires_grad or not size:
                continue
            generator = torch.Generator().manual_seed(0)
            total = dict.fromkeys(self.names, 0.0)
            for _ in range(DIRECTIONS):
                direction = torch.randn(value.shape, generator=generator, dtype=value.dtype)
                grads = torch.autograd.grad(
                    value, list(leaves.values()), direction, retain_graph=True, allow_unused=True
                )
                for (name, leaf), grad in zip(leaves.items(), grads, strict=True):
                    if grad is not None:
                        total[name] += float((grad * leaf.detach()).sum()) ** 2
            noise = self._floors[output, case["scale"]]
            for name, square in total.items():
                moved = (CHANGE - 1) * math.sqrt(square / DIRECTIONS)
                found[name] = max(found[name], moved / size / noise)
        return found

    def _outputs(self, leaves: Mapping[str, torch.Tensor], inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        definition = self._it.definition
        given = [torch.from_numpy(np.ascontiguousarray(inputs[t.name])) for t in definition.inputs]
        given = [tensor.double() if tensor.is_floating_point() else tensor for tensor in given]
        counts = {name: int(inputs[name]) for name in definition.repeats}
        with define.in_float64(self._module), _differentiable_norms():
            outputs = tree_leaves(torch.func.functional_call(self._module, dict(leaves), tuple(given), counts))
        return {t.name: value for t, value in zip(definition.outputs, outputs, strict=True)}


@contextmanager
def _differentiable_norms() -> Iterator[None]:
    """Batch norms written out: PyTorch's gives no gradient of its statistics."""

    def plain(
        x: torch.Tensor,
        mean: torch.Tensor,
        var: torch.Tensor,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        shape = (1, -1, *[1] * (x.dim() - 2))
        y = (x - mean.reshape(shape)) / (var.reshape(shape) + eps).sqrt()
        y = y if weight is None else y * weight.reshape(shape)
        return y if bias is None else y + bias.reshape(shape)

    with mock.patch.object(F, "batch_norm", plain):
        yield
