"""What the processor that runs the tests can do, as the runtimes here say."""

from __future__ import annotations

from functools import cache

import pytest


@cache
def has_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this processor; without it, it refuses before work starts."""
    from targets.openvino import _capabilities

    return "BF16" in _capabilities()


def skip_without(precision: str) -> None:
    """Skips the test that asks for what this processor does not have."""
    if precision == "bf16" and not has_bf16():
        pytest.skip("NO BF16: this processor has none")
