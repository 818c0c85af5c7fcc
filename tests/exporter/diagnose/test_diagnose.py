"""Whole diagnoses of one small bundle: each hop, each outcome, and the bundle of what fails by itself."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from unittest import mock

import onnx
import pytest

from exporter import pipeline, trace
from exporter.bundle import Bundle, editing, read_tensors, write_tensors
from exporter.diagnose import Diagnosis, Outcome, diagnose
from exporter.diagnose.result import Birth
from exporter.errors import Refused
from exporter.graph import Graph
from exporter.request import Request
from exporter.verdict import Verdict
from exporter.verification import verify
from tests.fakes.planting import EDITS, Plant, candidates, in_process, planted

MODEL, TARGET = "conv-gated-ffn", "mobile"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("diagnose") / "it.bundle"
    request = Request(MODEL, TARGET, path, dims=("H=2:8:12", "W=2:8:12"), profile=False)
    with in_process():
        assert pipeline.export(request).verification.verdict is Verdict.PASS
    return path


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    shutil.copytree(exported, tmp_path / "it.bundle")
    return tmp_path / "it.bundle"


def graph_of(bundle: Path, hop: str = "simplified") -> onnx.ModelProto:
    opened = Bundle.open(bundle)
    return Graph(opened.file(getattr(opened.manifest.graphs["model"], hop))).load()


def plant_in(bundle: Path, kind: str, hop: str, operator: str = "") -> Plant:
    model = graph_of(bundle, "traced" if hop == "traced" else "simplified")
    kinds = {node.name: node.op_type for node in model.graph.node}
    return next(p for p in candidates(model, kind, hop, "model", 0) if operator in ("", kinds[p.node]))


def looked(bundle: Path, **more: str) -> Diagnosis:
    return diagnose(bundle, output=bundle.with_name("failing.bundle"), **more)  # type: ignore[arg-type]


def born(found: Diagnosis) -> Birth:
    assert found.birth is not None, found
    return found.birth


def test_nothing_is_wrong_with_what_passes(bundle: Path) -> None:
    with in_process():
        found = looked(bundle)
    assert (found.verdict, found.outcome, found.births) == (Verdict.PASS, Outcome.NOTHING, ())
    assert found.verdict.exit_code == 0 and not bundle.with_name("failing.bundle").exists()


@pytest.mark.parametrize(
    ("kind", "hop", "operator"),
    [
        ("wrong weight tensor", "traced", "Conv"),
        ("wrong weight tensor", "simplified", "Conv"),
        ("lowered precision", "compiled", "Conv"),
        ("wrong attribute", "compiled", "Conv"),
        ("broken pass", "simplified", "Erf"),
    ],
)
def test_a_planted_node_is_named_and_fails_by_itself(bundle: Path, kind: str, hop: str, operator: str) -> None:
    plant = plant_in(bundle, kind, hop, operator)
    with planted(plant, bundle, TARGET):
        found = looked(bundle)
        assert (found.verdict, found.outcome, found.hop) == (Verdict.FAIL, Outcome.LOCATED, hop)
        birth = born(found)
        assert plant.named(birth.node), (plant, birth)
        assert birth.source.startswith("model_defs/restoration/") and birth.only and birth.alone
        assert len({each.case for each in found.births}) == 3 and len({each.node for each in found.births}) == 1
        assert found.simplify_pass == ("broken" if kind == "broken pass" else None)
        assert [p.off for p in birth.growth if p.place < birth.place and p.off > 64] == []
        assert found.reproduction is not None
        assert verify(Path(found.reproduction)).verdict is Verdict.FAIL
    written = json.loads(json.dumps(found.as_json()))
    assert written["schema"] == "exporter.diagnose/1"
    assert Birth.from_json(written["births"][0]) == birth


def test_a_wrong_translation_is_found_against_pytorch(bundle: Path) -> None:
    """Tracing makes the same mistake again: only what PyTorch computes inside tells."""
    plant = plant_in(bundle, "wrong weight tensor", "traced", "Conv")
    translate = trace.translate

    def wrongly(program: object) -> object:
        from onnx_ir import from_proto, to_proto

        model, decomposed = translate(program)  # type: ignore[arg-type]
        return from_proto(plant.into(to_proto(model))), decomposed

    with planted(plant, bundle, TARGET), mock.patch.object(trace, "translate", wrongly):
        found = looked(bundle)
    assert found.hop == "traced" and plant.named(born(found).node)


def test_what_pytorch_captured_wrongly_is_told(bundle: Path) -> None:
    """The case says something else than the model: nothing of the graph is to blame."""
    with editing(bundle, "a test") as draft:
        assert draft.old is not None
        cases = []
        for case in draft.old.manifest.cases:
            tensors = read_tensors(draft.old.file(case.file))
            wrong = {n: v * 1.01 if n.startswith("reference/") else v for n, v in tensors.items()}
            write_tensors(draft.work / "wrong.safetensors", wrong)
            file = draft.add(draft.work / "wrong.safetensors", f"cases/{case.name}.safetensors")
            cases.append(dataclasses.replace(case, file=file))
        draft.commit(dataclasses.replace(draft.old.manifest, cases=tuple(cases)))
    with in_process():
        found = looked(bundle)
    assert (found.hop, found.outcome, found.births) == ("traced", Outcome.BEFORE, ())


def test_an_artifact_that_is_not_what_is_compiled_here_is_told(bundle: Path) -> None:
    with planted(plant_in(bundle, "lowered precision", "compiled", "Conv"), bundle, TARGET):
        pass
    with in_process():
        found = looked(bundle)
    assert (found.verdict, found.outcome, found.hop) == (Verdict.FAIL, Outcome.STALE, "compiled")
    assert any("compile the bundle again" in note for note in found.notes)


def test_one_case_may_be_asked_for(bundle: Path) -> None:
    case = Bundle.open(bundle).manifest.cases[0].name
    with planted(plant_in(bundle, "wrong weight tensor", "simplified"), bundle, TARGET):
        assert [birth.case for birth in looked(bundle, case=case).births] == [case]


@pytest.mark.parametrize(
    ("asked", "code"), [({"case": "normal"}, "unknown-case"), ({"target": "none"}, "unknown-target"),
                        ({"simplify_pass": "fold"}, "unknown-pass")],
)  # fmt: skip
def test_what_the_bundle_does_not_hold_is_refused(bundle: Path, asked: dict[str, str], code: str) -> None:
    with in_process(), pytest.raises(Refused) as caught:
        looked(bundle, **asked)
    assert caught.value.code == code


def test_a_bundle_of_something_else_is_not_written_over(bundle: Path) -> None:
    shutil.copytree(bundle, bundle.with_name("failing.bundle"))
    with planted(plant_in(bundle, "wrong weight tensor", "simplified"), bundle, TARGET):
        with pytest.raises(Refused) as caught:
            looked(bundle)
    assert caught.value.code == "other-graph"
    assert Bundle.open(bundle.with_name("failing.bundle")).manifest.model.name == MODEL


@pytest.mark.slow
@pytest.mark.parametrize("kind", EDITS)
def test_planted_defects_of_a_network_are_named(kind: str, tmp_path: Path) -> None:
    """One of each kind in a recurrent network; ``python -m tests.bench diagnosing`` does 60 in six."""
    from tests.bench.diagnosing import HOPS, _tried

    number = list(EDITS).index(kind)
    path = tmp_path / "net.bundle"
    with in_process():
        pipeline.export(Request("gtcrn", TARGET, path, dims=("T=2:16:24",), profile=False))
    hop = {"broken pass": "simplified", "lowered precision": "compiled"}.get(kind, HOPS[number % 3])
    tried = _tried("gtcrn", path, kind, hop, TARGET, seed=number)
    assert tried is not None and tried.hit, tried and tried.line()
