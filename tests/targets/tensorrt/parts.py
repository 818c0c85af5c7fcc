"""The target's parts as modules: they are loaded from where they lie, as the registry loads targets."""

from __future__ import annotations

import importlib
from typing import Any

from exporter import registry

target: Any = registry.target("tensorrt")
_module = importlib.import_module("exporter_targets.tensorrt")
fits = _module.fits
facts: Any = importlib.import_module("exporter_targets._tensorrt.facts")
recipe: Any = importlib.import_module("exporter_targets._tensorrt.recipe")
inspector: Any = importlib.import_module("exporter_targets._tensorrt.inspector")
clocks: Any = importlib.import_module("exporter_targets._tensorrt.clocks")
build: Any = importlib.import_module("exporter_targets._tensorrt.build")
cuda: Any = importlib.import_module("exporter_targets._tensorrt.cuda")
