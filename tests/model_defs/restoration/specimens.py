"""Specimens of definitions with options, judged by the very code that judges exports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from exporter import registry
from exporter.spec import ModelDef
from tests.fakes import lab

# The smallest Restormer that has every part of the large one.
SMALL = {"dim": 8, "blocks": "1,1,1,1", "refinement": 1}
TARGETS = ("openvino", "mobile")


def specimen(name: str, folder: Path, dims: tuple[str, ...] = (), **options: Any) -> lab.Specimen:
    """The lab's specimen of the definition that ``options`` make, at the lab's small dims or at ``dims``."""
    right = registry.model

    def with_options(asked: str, given: Mapping[str, Any] | None = None) -> ModelDef:
        made = right(asked, {**options, **(given or {})} if asked == name else given)
        return made.with_dims(dims)

    with mock.patch.object(registry, "model", with_options):
        return lab.specimen(name, folder)
