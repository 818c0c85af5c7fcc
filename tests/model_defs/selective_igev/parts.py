"""The family's modules, under the name by which the registry loads them."""

from __future__ import annotations

import importlib
from types import ModuleType

from exporter import registry


def module(name: str) -> ModuleType:
    """``model_defs/selective_igev/NAME.py``, or the ``_timm`` beside the families."""
    registry.model("selective-igev")
    family = "" if name.startswith("_") else "selective_igev."
    return importlib.import_module(f"exporter_model_defs.{family}{name}")
