"""Why ``fold`` leaves onnxscript's rewrite rules out: measured on GTCRN with its published weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from exporter.graph import Graph
from exporter.hops import graph_hop
from exporter.simplify import passes
from exporter.spec import WHOLE
from tests.fakes.lab import Here, specimen


def amplifications(it: Any, model: Any, path: Path) -> dict[str, float]:
    Graph.written(path, model)
    hop = graph_hop(Here(), "simplified", {WHOLE: path}, it.common, it.case_list)  # type: ignore[arg-type]
    return {result.case: result.amplification or 0.0 for result in hop.results}


@pytest.mark.slow
def test_rewrite_rules_raise_the_error_on_sparse_inputs(gtcrn_checkpoint: Path, tmp_path: Path) -> None:
    """``pytest -s tests/exporter/parity/test_rewrite_rules.py`` prints the figures of ``docs/parity.md``."""
    from onnxscript import optimizer

    it = specimen("gtcrn", tmp_path / "gtcrn", checkpoint=gtcrn_checkpoint)
    traced = ir.load(it.traced)
    optimizer.optimize_ir(traced)
    folded = passes.fold(ir.to_proto(ir.load(it.traced)))
    found = {
        "traced": amplifications(it, ir.to_proto(ir.load(it.traced)), tmp_path / "traced.onnx"),
        "fold": amplifications(it, folded, tmp_path / "folded.onnx"),
        "fold and rewrite": amplifications(it, ir.to_proto(traced), tmp_path / "rewritten.onnx"),
    }
    for name, figures in found.items():
        print(name, {case: round(value, 2) for case, value in figures.items()})
    assert found["fold"]["sparse-T63"] < 4
    assert found["fold and rewrite"]["sparse-T63"] > 5 * found["fold"]["sparse-T63"]
