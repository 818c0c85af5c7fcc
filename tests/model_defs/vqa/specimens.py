"""Specimens of definitions with options, judged by the very code that judges exports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from exporter import define, registry
from exporter.spec import ModelDef
from tests.fakes import lab

TARGETS = ("openvino", "mobile")


def specimen(
    name: str, folder: Path, dims: tuple[str, ...] = (), checkpoint: Path | None = None, **options: Any
) -> lab.Specimen:
    """The lab's specimen of the definition that ``options`` make, at the lab's small dims or at ``dims``."""
    right = registry.model

    def with_options(asked: str, given: Mapping[str, Any] | None = None) -> ModelDef:
        made = right(asked, {**options, **(given or {})} if asked == name else given)
        return made.with_dims(dims)

    with mock.patch.object(registry, "model", with_options):
        return lab.specimen(name, folder, checkpoint=checkpoint)


def seeded(module: nn.Module, *inputs: Tensor) -> nn.Module:
    """Weights that are neither zero nor one, so that every one of them counts.

    With inputs, batch normalisations have the statistics of what they see, as trained ones do: with statistics at
    random every one of EfficientNet's blocks makes what the image says smaller, until nothing is left of it.
    """
    define.seed_weights(module, 0)
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)] if inputs else []
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for given in inputs[:1]:
            module(given, *inputs[1:])
    return module.eval()
