"""The real thing: skipped, with the reason, where there is no TensorRT or no GPU. ``make test-gpu`` runs it."""

from __future__ import annotations

import pytest

from exporter import registry


@pytest.fixture(autouse=True, scope="session")
def _gpu() -> None:
    found = registry.target("tensorrt").available()
    if not found.present:
        pytest.skip(f"NO GPU: {found.reason}; make test-gpu on a machine that has one")
