"""Which models which tests run on: all of them in the end, the heavy ones in ``make test-all`` only."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from exporter import define, registry

# A float64 reference of a larger one takes longer than all light ones together.
HEAVY_PARAMETERS = 5_000_000


@cache
def parameters(name: str) -> int:
    return define.parameters(registry.model(name))


def heavy(name: str) -> bool:
    return parameters(name) > HEAVY_PARAMETERS


def every_model() -> list[Any]:
    """All models; quick are one light model per family, with state and without, and those of several graphs."""
    quick = {*_lightest_of_each_family(), *(name for name in registry.model_names() if _of_parts(name))}
    return [pytest.param(name, marks=[] if name in quick else [pytest.mark.slow]) for name in registry.model_names()]


def _of_parts(name: str) -> bool:
    return not heavy(name) and bool(registry.model(name).parts)


def every_model_thoroughly() -> list[Any]:
    """All models; what is asked of the checker rather than of the model is quick on one light model per family."""
    quick = set(_lightest_of_each_family())
    return [pytest.param(name, marks=[] if name in quick else [pytest.mark.slow]) for name in registry.model_names()]


@cache
def _lightest_of_each_family() -> list[str]:
    lightest: dict[tuple[str, bool], str] = {}
    for name in registry.model_names():
        definition = registry.model(name)
        # A model with state has tests of its own.
        key = definition.family, definition.stream is not None
        if 0 < parameters(name) < parameters(lightest.get(key, name)) or (key not in lightest and parameters(name)):
            lightest[key] = name
    return [name for name in lightest.values() if not heavy(name)]
