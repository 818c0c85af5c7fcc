"""Lower precisions: what is wrong there is found as in float32, and what a precision itself errs by is none of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from exporter import pipeline
from exporter.bundle import Bundle
from exporter.diagnose import Diagnosis, Outcome, diagnose
from exporter.graph import Graph
from exporter.request import Request
from exporter.verdict import Verdict
from exporter.verification import verify
from tests.fakes.planting import Plant, candidates, in_process, planted
from tests.fakes.processor import has_bf16, skip_without

MODEL = "conv-gated-ffn"
# A target, a precision, and the way that it takes to it.
MADE = (("mobile", "fp16", "types"), ("mobile", "int8", "quantised"), ("openvino", "bf16", "hint"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("precisions") / "it.bundle"
    for target, precision, way in MADE:
        if precision == "bf16" and not has_bf16():
            continue
        asked = Request(MODEL, target, path, dims=("H=2:8:12", "W=2:8:12"), precision=precision, profile=False)
        with in_process():
            assert pipeline.export(asked).verification.verdict is Verdict.PASS
        assert Bundle.open(path).manifest.targets[f"{target}/{precision}"].way in (way, "mixed")
    return path


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    shutil.copytree(exported, tmp_path / "it.bundle")
    return tmp_path / "it.bundle"


def plant_in(bundle: Path, kind: str, hop: str, lowered: str = "", operator: str = "Conv") -> Plant:
    """The last node of an operator that a defect can be planted in: what comes before it is right, and rounded."""
    opened = Bundle.open(bundle)
    simplified = opened.manifest.graphs["model"].simplified
    graph = Graph(opened.file(opened.manifest.targets[lowered].graphs["model"] if lowered else simplified)).load()
    kinds = {node.name: node.op_type for node in graph.graph.node}
    found = {p.node: p for p in candidates(graph, kind, hop, "model", 0) if kinds[p.node] == operator}
    return found[max(found, key=list(kinds).index)]


def looked(bundle: Path, key: str) -> Diagnosis:
    return diagnose(bundle, key, output=bundle.with_name("failing.bundle"))


@pytest.mark.parametrize(("target", "precision"), [(target, precision) for target, precision, _ in MADE])
def test_nothing_is_wrong_with_what_passes(target: str, precision: str, bundle: Path) -> None:
    skip_without(precision)
    with in_process():
        assert looked(bundle, f"{target}/{precision}").outcome is Outcome.NOTHING


def test_a_graph_that_was_lowered_wrongly_is_told_apart_from_what_was_compiled(bundle: Path) -> None:
    """Its weights and values are rounded to fp16, which is a thousand times float32's own error, and no defect."""
    plant = plant_in(bundle, "wrong weight tensor", "lowered", "mobile/fp16")
    with planted(plant, bundle, "mobile", "fp16"):
        found = looked(bundle, "mobile/fp16")
        assert (found.outcome, found.hop, found.precision) == (Outcome.LOCATED, "lowered", "fp16")
        assert found.birth is not None and plant.named(found.birth.node), (plant, found.birth)
        assert found.birth.before < 4 < found.birth.off
        assert found.reproduction is not None and verify(Path(found.reproduction)).verdict is Verdict.FAIL


@pytest.mark.parametrize(("target", "precision"), [("mobile", "fp16"), ("openvino", "bf16")])
def test_a_kernel_that_is_wrong_in_a_lower_precision_is_named(target: str, precision: str, bundle: Path) -> None:
    skip_without(precision)
    plant = plant_in(bundle, "wrong weight tensor", "compiled", "mobile/fp16" if precision == "fp16" else "")
    with planted(plant, bundle, target, precision):
        found = looked(bundle, f"{target}/{precision}")
        assert (found.outcome, found.hop, found.precision) == (Outcome.LOCATED, "compiled", precision)
        assert found.birth is not None and plant.named(found.birth.node), (plant, found.birth)
        assert found.reproduction is not None and verify(Path(found.reproduction)).verdict is Verdict.FAIL


def test_int8_names_the_place_and_writes_no_part(bundle: Path) -> None:
    """Scales bring an error at every node; what is named is far above it."""
    plant = plant_in(bundle, "broken pass", "compiled", operator="Erf")
    with planted(plant, bundle, "mobile", "int8"):
        found = looked(bundle, "mobile/int8")
    assert (found.hop, found.precision) == ("compiled", "int8")
    assert found.birth is not None and plant.named(found.birth.node), (plant, found.birth)
    assert found.reproduction is None and any("scales of int8" in note for note in found.notes)
