"""The checker is checked: every built-in model on every fast target, wrong in every way of ``docs/parity.md``.

A sabotage that passes is a hole in the tool's one promise; a clean artifact that fails is a tool nobody believes.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from exporter import program, registry
from exporter.parity import worker
from exporter.target import Artifact, Ran
from exporter.verdict import Hop, Verdict
from tests.contract.selection import every_model, every_model_thoroughly
from tests.fakes import sabotage
from tests.fakes.lab import Here, Silent, Specimen, specimen, standing_in

# The reference evaluator needs seconds per frame; it is sabotaged nowhere because it is not where users deploy.
TARGETS = [n for n in registry.target_names() if registry.target(n).runs_graphs != 9]

everywhere = pytest.mark.parametrize("target", TARGETS)
# What is asked of the judge rather than of the runtime is quick on the runtime that is.
once = pytest.mark.parametrize(
    "target", [pytest.param(name, marks=[] if name == "mobile" else [pytest.mark.slow]) for name in TARGETS]
)


@pytest.fixture(params=every_model())
def each(request: pytest.FixtureRequest, specimens: Callable[..., Specimen]) -> Specimen:
    return specimens(request.param)


@pytest.fixture(params=every_model_thoroughly())
def it(request: pytest.FixtureRequest, specimens: Callable[..., Specimen]) -> Specimen:
    return specimens(request.param)


@pytest.fixture(autouse=True)
def present(request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params.get("target") if hasattr(request.node, "callspec") else None
    if name and not registry.target(name).available().present:
        pytest.skip(f"RUNTIME ABSENT: {name}: {registry.target(name).available().reason}")


def quick(it: Specimen) -> list[Any]:
    """Without the sequence, where a sabotage shows in a single call as well."""
    return [case for case in it.case_list if case["steps"] == 1]


def tampered(it: Specimen, target: str, tamper: sabotage.Tamper, cases: Any = None, ran: Ran | None = None) -> Hop:
    """Verifies the right artifact with ``tamper`` before its answers, whatever number of graphs gives them."""
    with sabotage.tampering(tamper, ran):
        return it.verify(target, cases=cases or quick(it))


def edited(it: Specimen, target: str, graphs: Mapping[str, onnx.ModelProto], folder: Path, cases: Any = None) -> Hop:
    """Verifies what the target compiles from the model's graphs with some of them changed."""
    paths = dict(it.simplified_graphs)
    for name, graph in graphs.items():
        paths[name] = folder / f"{name}.sabotaged.onnx"
        paths[name].write_bytes(graph.SerializeToString())
    artifact = it.compiled(target, paths, folder / target)
    # One form is enough: the other is made of the same graph, and the clean control opens both.
    artifact = dataclasses.replace(artifact, forms=artifact.forms[:1])
    return it.verify(target, artifact, cases=cases or quick(it))


def largest_weights(it: Specimen) -> list[tuple[str, str, str, onnx.ModelProto]]:
    """``(graph, block, weight, model)``: the largest weight of every block of every graph."""
    found = []
    for part, path in it.simplified_graphs.items():
        graph = onnx.load(str(path))
        found += [(part, block, name, graph) for block, name in sabotage.largest_per_block(graph).items()]
    if not found:
        assert it.reference["parameters"] == 0, "a model with weights has blocks with weights"
        pytest.skip(f"NOT APPLICABLE: {it.definition.name} has no weights")
    return found


def outputs_of(it: Specimen) -> list[str]:
    return [tensor.name for tensor in it.definition.outputs]


# ------------------------------------------------------------------------------------------------ clean control


@everywhere
def test_what_is_right_passes(each: Specimen, target: str) -> None:
    hop = each.verify(target)
    assert hop.verdict is Verdict.PASS, hop.reason
    forms = each.artifact(target).forms
    assert len(hop.results) == len(each.case_list) * len(each.definition.outputs) * len(forms)
    assert all(result.elements > 0 for result in hop.results)


@everywhere
def test_a_tamper_that_changes_nothing_passes(it: Specimen, target: str) -> None:
    """The harness of these tests is no sabotage of its own."""
    assert tampered(it, target, lambda inputs, outputs: outputs).verdict is Verdict.PASS


# ------------------------------------------------------------------------------------------------ wrong answers


@everywhere
@pytest.mark.parametrize("change", [lambda y: y * np.float32(1.001), sabotage.one_broken], ids=["scale", "element"])
def test_every_model_s_wrong_answers_are_caught(
    it: Specimen, target: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    def tamper(inputs: sabotage.Arrays, outputs: sabotage.Arrays) -> sabotage.Arrays:
        return {name: change(y) for name, y in outputs.items()}

    hop = tampered(it, target, tamper, cases=quick(it)[:4])
    assert {r.output for r in hop.results if r.verdict is Verdict.FAIL} == set(outputs_of(it))


@everywhere
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda y: y * np.float32(1.001), id="scale-1.001"),
        pytest.param(sabotage.one_nan, id="one-nan"),
        pytest.param(sabotage.one_broken, id="one-element"),
        pytest.param(sabotage.shifted, id="off-by-one"),
        pytest.param(lambda y: y.astype(np.float64), id="dtype-f64"),
        pytest.param(lambda y: y.astype(np.float16), id="dtype-f16"),
        pytest.param(lambda y: y[..., :-1], id="short"),
        pytest.param(lambda y: y[None], id="rank"),
        pytest.param(np.ravel, id="flat"),
        pytest.param(lambda y: y[:0], id="empty"),
        pytest.param(np.negative, id="sign"),
        pytest.param(lambda y: np.full_like(y, np.inf), id="infinite"),
    ],
)
def test_a_changed_output_is_caught_on_every_output(
    it: Specimen, target: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    def tamper(inputs: sabotage.Arrays, outputs: sabotage.Arrays) -> sabotage.Arrays:
        return {name: change(y) for name, y in outputs.items()}

    hop = tampered(it, target, tamper, cases=quick(it)[:4])
    assert hop.verdict is Verdict.FAIL
    assert {r.output for r in hop.results if r.verdict is Verdict.FAIL} == set(outputs_of(it))


@everywhere
def test_blame_falls_on_the_output_that_is_wrong(it: Specimen, target: str) -> None:
    for name in outputs_of(it)[:3]:
        hop = tampered(it, target, sabotage.changed(name, lambda y: y * np.float32(1.001)), cases=quick(it)[:4])
        assert {r.output for r in hop.results if r.verdict is not Verdict.PASS} == {name}
        assert hop.reason and name in hop.reason


@everywhere
def test_swapped_outputs_are_caught(it: Specimen, target: str) -> None:
    shapes: dict[Any, list[str]] = {}
    for tensor in it.definition.outputs:
        shapes.setdefault(tensor.shape, []).append(tensor.name)
    twins = [names[:2] for names in shapes.values() if len(names) > 1]
    if not twins:
        assert len(outputs_of(it)) == 1, "several outputs, no two of one shape: the shape check covers a swap"
        pytest.skip(f"NOT APPLICABLE: {it.definition.name} has one output, there is nothing to swap it with")
    for first, second in twins:
        hop = tampered(it, target, sabotage.swapped(first, second))
        assert hop.verdict is Verdict.FAIL
        assert {first, second} <= {r.output for r in hop.results if r.verdict is Verdict.FAIL}


@everywhere
def test_dropped_and_extra_outputs_are_caught(it: Specimen, target: str) -> None:
    for name in outputs_of(it)[:3]:
        hop = tampered(it, target, sabotage.dropped(name))
        assert hop.verdict is Verdict.FAIL and "missing" in str(hop.reason)
    hop = tampered(it, target, sabotage.extra)
    assert hop.verdict is Verdict.FAIL and "surprise" in str(hop.reason) and "nobody declared" in str(hop.reason)


@everywhere
def test_a_sequence_without_its_outputs_is_no_pass(it: Specimen, target: str) -> None:
    """A state that vanishes breaks the loop itself: whatever happens, it is not success."""
    if it.definition.stream is None:
        pytest.skip(f"NOT APPLICABLE: {it.definition.name} has no state")
    sequence = [case for case in it.case_list if case["steps"] > 1]
    assert sequence, "a model with a stream is judged on a sequence"
    for name in (it.definition.stream.output, it.definition.state[0].output):
        hop = tampered(it, target, sabotage.dropped(name), cases=sequence)
        assert hop.verdict in (Verdict.FAIL, Verdict.CRASHED), hop


@everywhere
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(sabotage.last_answer, id="last-answer"),
        pytest.param(sabotage.first_answer, id="first-answer"),
        pytest.param(lambda: sabotage.zeros, id="zeros"),
        pytest.param(lambda: sabotage.constants, id="constants"),
    ],
)
def test_an_artifact_that_does_not_compute_is_caught(it: Specimen, target: str, make: Callable[[], Any]) -> None:
    assert tampered(it, target, make()).verdict is Verdict.FAIL


@everywhere
def test_a_stale_state_is_caught_in_the_sequence(it: Specimen, target: str) -> None:
    """The single calls may all be right: only the model's own fed-back state shows it."""
    if it.definition.stream is None:
        pytest.skip(f"NOT APPLICABLE: {it.definition.name} has no state")
    sequence = [case for case in it.case_list if case["steps"] > 1]
    assert sequence, "a model with a stream is judged on a sequence"
    assert it.verify(target, cases=sequence + quick(it)).verdict is Verdict.PASS
    for state in (it.definition.state[0], it.definition.state[-1]):
        reset = sabotage.changed(state.output, np.zeros_like)
        hop = tampered(it, target, reset, cases=sequence + quick(it))
        assert hop.verdict is Verdict.FAIL
        assert any(r.case == "sequence" and r.verdict is Verdict.FAIL for r in hop.results), state


# ------------------------------------------------------------------------------------------------ wrong graphs


@once
def test_the_largest_weight_of_each_block_times_1_01_is_caught(each: Specimen, target: str, tmp_path: Path) -> None:
    missed = {}
    for part, block, name, graph in largest_weights(each):
        hop = edited(each, target, {part: sabotage.scaled(graph, name, 1.01)}, tmp_path)
        if hop.verdict is not Verdict.FAIL:
            # What is normalised next has no scale: the model is the same one. Its direction is another matter.
            hop = edited(each, target, {part: sabotage.scaled(graph, name, 1.01, every=2)}, tmp_path)
        if hop.verdict is not Verdict.FAIL:
            missed[part, block] = (name, hop.verdict, hop.worst_result and hop.worst_result.amplification)
    assert not missed


@everywhere
def test_the_edited_graph_harness_is_no_sabotage_of_its_own(it: Specimen, target: str, tmp_path: Path) -> None:
    part, _, name, graph = next(iter(largest_weights(it)))
    assert edited(it, target, {part: sabotage.scaled(graph, name, 1.0)}, tmp_path).verdict is Verdict.PASS


@everywhere
def test_a_frozen_dim_is_caught(it: Specimen, target: str, tmp_path: Path) -> None:
    free = [d for d in it.definition.dims if not d.fixed]
    if not free:
        pytest.skip(f"NOT APPLICABLE: {it.definition.name} has no dynamic dim")
    sizes = {d.name: d.opt for d in free}
    paths = {name: tmp_path / f"{name}.frozen.onnx" for name in it.simplified_graphs}
    for name, path in paths.items():
        frozen = sabotage.frozen(onnx.load(str(it.simplified_graphs[name])), sizes)
        path.write_bytes(frozen.SerializeToString())
    fixed = {d.name: (d.opt, d.opt, d.opt, 1) for d in free}
    artifact = it.compiled(target, paths, tmp_path / target, dataclasses.replace(it.options, dims=fixed))
    hop = it.verify(target, artifact)
    # It may refuse the second size or answer wrongly; it may not pass.
    assert hop.verdict in (Verdict.FAIL, Verdict.CRASHED)


@everywhere
@pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.FLOAT16], ids=["bf16", "fp16"])
def test_a_graph_lowered_in_silence_is_caught(it: Specimen, target: str, kind: int, tmp_path: Path) -> None:
    graphs = {n: sabotage.lowered(onnx.load(str(p)), kind) for n, p in it.simplified_graphs.items()}
    try:
        hop = edited(it, target, graphs, tmp_path)
    except Exception:  # the runtime has no such Cast: a refusal is as good
        return
    if target == "openvino":
        # Asked for f32, OpenVINO removes pairs of casts to f16, and to bf16 on a processor without it: the artifact is
        # right again, to the last digits.
        clean = it.verify(target, cases=quick(it)).worst_result
        worst = hop.worst_result
        assert clean and worst and (hop.verdict is Verdict.FAIL or worst.amplification < 2 * clean.amplification)
        return
    assert hop.verdict is Verdict.FAIL


@pytest.fixture
def bf16() -> Iterator[None]:
    """OpenVINO really runs bf16, while the options still say fp32."""
    runner = importlib.import_module(
        f"{type(registry.target('openvino')).__module__.rpartition('.')[0]}._openvino.runner"
    )
    right = runner.properties
    with mock.patch.object(
        runner, "properties", lambda options: {**right(options), "INFERENCE_PRECISION_HINT": "bf16"}
    ):
        yield


@pytest.mark.parametrize("target", ["openvino"])
def test_openvino_that_really_runs_bf16_is_caught(it: Specimen, target: str, bf16: None) -> None:
    hop = it.verify("openvino", cases=quick(it))
    if hop.precision and hop.precision.ran == "fp32":
        pytest.skip("NO BF16: this processor runs bf16 as fp32")
    assert hop.verdict is Verdict.FAIL
    assert "bf16" in str(hop.reason)


@pytest.mark.parametrize("target", ["openvino"])
def test_bf16_is_caught_by_its_values_too(it: Specimen, target: str, bf16: None) -> None:
    """Even if the runtime lied about what ran."""
    right = registry.target("openvino")
    with program.open_artifact(right, it.program, it.artifact("openvino"), it.options) as runner:
        if "bf16" not in program.ran(right, runner).precision:
            pytest.skip("NO BF16: this processor runs bf16 as fp32")
    hop = tampered(it, "openvino", lambda inputs, outputs: outputs, ran=Ran("fp32", {}, {}))
    assert hop.verdict is Verdict.FAIL
    worst = hop.worst_result
    assert worst is not None and worst.amplification is not None and worst.amplification > 100


@everywhere
@pytest.mark.parametrize("ran", ["bf16+fp32", "fp16", "none", ""])
def test_another_precision_than_asked_is_a_fail_whatever_the_values(it: Specimen, target: str, ran: str) -> None:
    hop = tampered(it, target, lambda inputs, outputs: outputs, ran=Ran(ran, {}, {}))
    assert hop.verdict is Verdict.FAIL and "asked for fp32" in str(hop.reason)


# ------------------------------------------------------------------------------------------------ nothing ran


class Forgetful(Here):
    """A child that did its work and lost part of it on the way."""

    def __init__(self, forget: Callable[[dict[str, Any]], Any]) -> None:
        self._forget = forget

    def attempt(self, stage: str, function: str, request: Any) -> Any:
        outcome = super().attempt(stage, function, request)
        value = json.loads(json.dumps(outcome.value))
        value["measurements"] = [m for m in value["measurements"] if not self._forget(m)]
        return dataclasses.replace(outcome, value=value)


@everywhere
@pytest.mark.parametrize("what", ["case", "output", "everything"])
def test_measurements_that_are_missing_are_no_pass(it: Specimen, target: str, what: str) -> None:
    case, output = quick(it)[-1]["name"], outputs_of(it)[-1]
    forget = {
        "case": lambda m: m["case"] == case,
        "output": lambda m: m["output"] == output,
        "everything": lambda m: True,
    }[what]
    hop = it.verify(target, cases=quick(it), stages=Forgetful(forget))
    assert hop.verdict is Verdict.FAIL
    assert any(r.reason == "it was never compared" for r in hop.results)


@everywhere
def test_no_case_at_all_is_no_pass(it: Specimen, target: str) -> None:
    assert it.verify(target, cases=[]).verdict is not Verdict.PASS


@everywhere
def test_a_target_that_never_runs_yields_no_pass_anywhere(it: Specimen, target: str) -> None:
    """Its runner opens, and gives nothing."""
    hop = tampered(it, target, lambda inputs, outputs: {})
    assert hop.verdict is Verdict.FAIL
    assert hop.results and not any(r.verdict is Verdict.PASS for r in hop.results)


@everywhere
def test_a_runner_that_raises_yields_no_pass(it: Specimen, target: str) -> None:
    def broken(inputs: Any, outputs: Any) -> Any:
        raise RuntimeError("the device is gone")

    hop = tampered(it, target, broken)
    assert hop.verdict is Verdict.CRASHED and not any(r.verdict is Verdict.PASS for r in hop.results)


def test_a_target_that_never_runs_never_proves_a_graph(specimens: Callable[..., Specimen]) -> None:
    """Nor do the traced and simplified hops, and no simplify pass is kept on its word."""
    from exporter.hops import graph_hop
    from exporter.simplify import simplify

    it = specimens("gtcrn")
    right = registry.graph_runners()[0]
    silent = sabotage.TamperedTarget(right, lambda inputs, outputs: {})
    silent.open_graph = lambda graph, options: sabotage.TamperedRunner(  # type: ignore[method-assign]
        right.open_graph(graph, options), lambda inputs, outputs: {}
    )
    with standing_in(right.name, silent), mock.patch.object(registry, "graph_runners", return_value=[silent]):
        hop = graph_hop(Here(), "traced", it.traced_graphs, it.common, quick(it))  # type: ignore[arg-type]
        assert hop.verdict is Verdict.FAIL and not any(r.verdict is Verdict.PASS for r in hop.results)
        output = it.folder / "unproven.onnx"
        graphs, outputs = {"model": str(it.traced)}, {"model": str(output)}
        request = {**it.common, "graphs": graphs, "simplified": outputs, "cases": quick(it)[:2]}
        request["onnx_tests"] = str(it.folder / "unproven-tests")
        request["work"] = {"model": str(it.folder / "unproven-work.json")}
        passes = simplify(json.loads(json.dumps(request, default=dict)), Silent())["passes"]["model"]
        assert all(record["verdict"] == "dropped" for record in passes)
        assert onnx.load(str(output)) == onnx.load(str(it.traced))
    with mock.patch.object(registry, "graph_runners", list):
        hop = graph_hop(Here(), "traced", it.traced_graphs, it.common, quick(it))  # type: ignore[arg-type]
        assert hop.verdict is Verdict.SKIPPED


def test_an_absent_runtime_is_skipped_not_passed(specimens: Callable[..., Specimen]) -> None:
    from exporter.target import Availability

    it = specimens("gtcrn")
    for target in (name for name in TARGETS if registry.target(name).available().present):
        absent = sabotage.TamperedTarget(registry.target(target), lambda inputs, outputs: outputs)
        absent.available = lambda: Availability(False, reason="not here")  # type: ignore[method-assign]
        hop = it.verify(target, it.artifact(target), stand_in=absent)
        assert hop.verdict is Verdict.SKIPPED and "not here" in str(hop.reason) and not hop.results


def test_one_wrong_form_of_two_is_enough(specimens: Callable[..., Specimen]) -> None:
    """A target that ships the same model in two files is judged on both."""
    it = specimens("gtcrn")
    right: Artifact = it.artifact("mobile")
    assert len(right.forms) == 2

    class SecondFormWrong(sabotage.TamperedTarget):
        def open(self, artifact: Artifact, options: Any, form: str | None = None) -> Any:
            self._tamper = sabotage.zeros if form == right.forms[1] else lambda inputs, outputs: outputs
            return super().open(artifact, options, form)

    hop = it.verify("mobile", stand_in=SecondFormWrong(registry.target("mobile"), sabotage.zeros), cases=quick(it))
    assert hop.verdict is Verdict.FAIL
    assert {r.form for r in hop.results if r.verdict is Verdict.FAIL} == {right.forms[1]}


# ------------------------------------------------------------------------------------------------ false alarms


@everywhere
def test_clean_verifications_never_fail(it: Specimen, target: str) -> None:
    for _ in range(5):
        hop = it.verify(target)
        assert hop.verdict is Verdict.PASS, hop.reason


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("model", ["gtcrn", "gtcrn-stream"])
def test_two_hundred_clean_verifications_never_fail(model: str, seed: int, tmp_path: Path) -> None:
    """Ten seeds of weights, both models, both targets, five times each: 200 in all."""
    it = specimen(model, tmp_path, seed)
    assert all(p["verdict"] != "dropped" for records in it.passes.values() for p in records), it.passes
    for target in TARGETS:
        for _ in range(5):
            hop = it.verify(target)
            worst = hop.worst_result
            assert hop.verdict is Verdict.PASS, (hop.reason, worst)


@pytest.mark.parametrize("seed", [pytest.param(14, marks=pytest.mark.slow), pytest.param(16, marks=pytest.mark.slow)])
def test_seeds_whose_single_draw_was_too_small_a_yardstick(seed: int, tmp_path: Path) -> None:
    """With one frame per scale as the yardstick these two of 50 seeds failed clean, at 6.0 and 7.1 times."""
    hop = specimen("gtcrn-stream", tmp_path, seed).verify("mobile")
    assert hop.verdict is Verdict.PASS, hop.reason
    worst = hop.worst_result
    assert worst is not None
    assert worst.amplification is not None
    assert worst.amplification < 3


def test_polygraphy_is_quiet() -> None:
    """What a library prints to stdout would garble ``--json``."""
    worker.quiet_polygraphy()
    from polygraphy.logger import G_LOGGER

    assert G_LOGGER.use_python_logging_system
