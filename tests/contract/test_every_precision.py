"""Every model in every precision that is written into its graph: right with every value rounded to its type."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from exporter.verdict import Verdict
from tests.contract.selection import every_model_thoroughly
from tests.fakes.lab import Specimen


@pytest.mark.parametrize("name", every_model_thoroughly())
def test_the_lowered_graph_is_as_right_as_eager_in_that_precision(
    name: str, specimens: Callable[..., Specimen]
) -> None:
    low = specimens(name).lowered("fp16")
    assert low.hop.verdict is Verdict.PASS, low.hop.reason
    assert low.hop.precision is not None and low.hop.precision.ran == "fp16, emulated"
    kept, nodes = low.hop.facts["kept"], low.hop.facts["nodes"]
    assert len(kept) < nodes / 2 and all(kept.values()), kept
