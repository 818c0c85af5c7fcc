"""Tests of one model run in one worker, so that it is traced and referenced once."""

from __future__ import annotations

import pytest

# Names of the fixtures that take a model's name.
MODEL_FIXTURES = ("name", "it", "each", "model")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        given = getattr(getattr(item, "callspec", None), "params", {})
        names = [given[fixture] for fixture in MODEL_FIXTURES if isinstance(given.get(fixture), str)]
        if names and "tests/contract" in str(item.path):
            item.add_marker(pytest.mark.xdist_group(names[0]))
