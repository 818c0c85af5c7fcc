"""Everything here runs on a device: what it needs is skipped, with the reason, where there is none."""

from __future__ import annotations

import pytest

from tests.device.there import absent


@pytest.fixture(autouse=True, scope="module")
def _environment() -> None:
    reason = absent()
    if reason:
        pytest.skip(reason)
