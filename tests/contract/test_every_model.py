"""What every model definition must satisfy; a new file in ``model_defs/`` is under it without a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from exporter import define, registry
from exporter.bundle import read_tensors
from exporter.graph import Graph, sha256
from exporter.hops import graph_hop
from exporter.parity.ladder import RUNGS, UNIT_ROUNDOFF, VACUOUS
from exporter.preflight import options_of
from exporter.program import open_graphs, prepare_graphs, problems
from exporter.spec import factors_of, size_of
from exporter.verdict import Verdict
from tests.contract.selection import every_model, every_model_thoroughly
from tests.contract.weights import Weights
from tests.fakes.lab import Here, Specimen, build_of


@pytest.fixture(params=every_model())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def it(name: str, specimens: Callable[..., Specimen]) -> Specimen:
    return specimens(name)


@pytest.fixture(params=every_model_thoroughly())
def model(request: pytest.FixtureRequest, specimens: Callable[..., Specimen]) -> Specimen:
    return specimens(request.param)


def test_the_definition_says_all_there_is_to_say(name: str) -> None:
    definition = registry.model(name)
    assert definition.name == name and definition.family and definition.source and definition.licence
    assert definition.inputs and definition.outputs
    for tensor in (*definition.inputs, *definition.outputs):
        assert tensor.name and tensor.meaning, f"{tensor.name} says nothing of itself"
        assert np.dtype(tensor.dtype)
        for size in tensor.shape:
            assert factors_of(size)[0] in {d.name for d in definition.dims} if isinstance(size, str) else size > 0
    assert all(tensor.low < tensor.high for tensor in definition.inputs)
    names = [tensor.name for tensor in (*definition.inputs, *definition.outputs)]
    assert len(set(names)) == len(names)
    used = {factors_of(size)[0] for tensor in definition.inputs for size in tensor.shape if isinstance(size, str)}
    assert used | set(definition.repeats) == {dim.name for dim in definition.dims}, "a dim that nothing has"
    if definition.checkpoint is not None:
        assert definition.checkpoint.address.startswith("https://") and definition.checkpoint.licence
        assert definition.checkpoint.sha256 is None or len(definition.checkpoint.sha256) == 64
    assert registry.model_sources(name)


def test_state_is_wired_to_itself(name: str) -> None:
    definition = registry.model(name)
    inputs = {tensor.name: tensor for tensor in definition.inputs}
    outputs = {tensor.name: tensor for tensor in definition.outputs}
    assert (
        len({s.input for s in definition.state}) == len({s.output for s in definition.state}) == len(definition.state)
    )
    for state in definition.state:
        given, next_ = inputs[state.input], outputs[state.output]
        assert (given.shape, given.dtype) == (next_.shape, next_.dtype), state
    if definition.stream is not None:
        assert definition.state, "a stream without state is a loop over independent calls"
        axis = definition.stream.axis
        assert isinstance(inputs[definition.stream.input].shape[axis], int)
        assert isinstance(outputs[definition.stream.output].shape[axis], int)
        assert definition.stream.steps >= 64


def test_it_builds_twice_with_the_same_weights(name: str) -> None:
    definition = registry.model(name)
    first, second = (define.weighted(definition, None, 0)[1] for _ in range(2))
    other = define.weighted(definition, None, 1)[1]
    assert first == second and first.kind == "seeded"
    assert (other.digest != first.digest) == any(p.requires_grad for p in definition.build().parameters())
    assert first.digest == define.weights_digest(define.eager(build_of(name)))


def test_the_same_inputs_give_the_same_graph(model: Specimen, tmp_path: Path) -> None:
    again = {name: tmp_path / f"{name}.onnx" for name in model.traced_graphs}
    request = {"build": model.build, "outputs": {name: str(path) for name, path in again.items()}}
    Here().run("trace", "exporter.trace:stage", request)
    for name, path in again.items():
        assert path.read_bytes() == model.traced_graphs[name].read_bytes(), name


@pytest.mark.parametrize("graph", ["traced", "simplified"])
def test_names_types_and_dims_of_the_graph_are_the_definitions(it: Specimen, graph: str) -> None:
    fixed = {d.name: d.opt for d in it.definition.dims if d.fixed}
    for name, path in it.graphs(graph).items():
        model = Graph(path).load()
        onnx.checker.check_model(model, full_check=True)
        inputs, outputs = it.definition.graph_tensors(name)
        for values, tensors in ((model.graph.input, inputs), (model.graph.output, outputs)):
            assert [value.name for value in values] == [tensor.name for tensor in tensors]
            for value, tensor in zip(values, tensors, strict=True):
                kind = value.type.tensor_type
                assert onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type) == np.dtype(tensor.dtype)
                shape = tuple(dim.dim_param or dim.dim_value for dim in kind.shape.dim)
                assert shape == tuple(expected(size, fixed) for size in tensor.shape), tensor.name


def expected(size: int | str, fixed: dict[str, int]) -> int | str:
    """How a graph writes a size: a fixed dim, or a part of one, as its number."""
    return size_of(size, fixed) if isinstance(size, int) or factors_of(size)[0] in fixed else size


def test_every_declared_dim_is_dynamic_at_the_outputs(it: Specimen) -> None:
    """Run at the smallest, the largest and an odd size: every output follows every dim it declares."""
    runner = registry.graph_runners()[0]
    sizes = {tuple(case["sizes"].items()): case for case in it.reference["cases"] if case["steps"] == 1}
    if any(not d.fixed for d in it.definition.dims):
        assert len(sizes) >= 3
    with open_graphs(runner, it.program, it.simplified_graphs, it.options) as opened:
        for case in sizes.values():
            outputs = opened.infer(it.inputs(case), check_inputs=False)
            for tensor in it.definition.outputs:
                assert outputs[tensor.name].shape == tensor.sized(case["sizes"])


@pytest.mark.parametrize("graph", ["traced", "simplified"])
def test_the_graph_computes_what_eager_computes(it: Specimen, graph: str) -> None:
    hop = graph_hop(Here(), graph, it.graphs(graph), it.common, it.case_list)  # type: ignore[arg-type]
    assert hop.verdict is Verdict.PASS, hop.reason
    assert {r.case for r in hop.results} == {case["name"] for case in it.case_list}


def test_a_model_with_a_stream_is_judged_on_a_sequence(it: Specimen) -> None:
    stream = it.definition.stream
    sequences = {case["name"]: case["steps"] for case in it.case_list if case["steps"] > 1}
    if stream is None:
        assert not sequences
        return
    # The planned one; a real recording, where there is one, is as many steps long as it is.
    assert sequences["sequence"] == stream.steps
    hop = graph_hop(Here(), "simplified", it.simplified_graphs, it.common, it.case_list)  # type: ignore[arg-type]
    for name, steps in sequences.items():
        judged = [result for result in hop.results if result.case == name]
        assert {r.output for r in judged} == {t.name for t in it.definition.outputs}
        assert all(r.verdict is Verdict.PASS for r in judged)
        drift = hop.facts["drift"][name]
        assert drift["output"] == stream.output and len(drift["error"]) == len(drift["eager"]) == steps
        assert max(drift["error"]) < 1e-5


def test_every_simplify_pass_is_kept(it: Specimen) -> None:
    for name, records in it.passes.items():
        assert all(record["verdict"] != "dropped" for record in records), (name, records)
        nodes = [len(Graph(graphs[name]).load().graph.node) for graphs in (it.simplified_graphs, it.traced_graphs)]
        assert nodes[0] <= nodes[1], name


def test_the_references_are_float64_and_move(it: Specimen) -> None:
    assert it.reference["reference"] == "float64"
    assert all("real input" in note for note in it.reference["notes"])
    moved = dict.fromkeys((tensor.name for tensor in it.definition.outputs), False)
    for case in it.case_list:
        tensors = read_tensors(Path(case["file"]))
        for output in moved:
            noise, _, movement = tensors[f"noise/{output}"]
            assert tensors[f"reference/{output}"].dtype == np.float64
            moved[output] = moved[output] or movement > VACUOUS * max(noise, UNIT_ROUNDOFF["fp32"])
    assert all(moved.values()), moved


def test_every_weight_is_seen(model: Specimen) -> None:
    """Each tensor times 1.01 moves some planned case over its rung, or is listed as undetectable; the list is exact."""
    weights = Weights(model)
    assert weights.moves(None) == 0.0
    unseen = {name for name in weights.names if not weights.seen(name, RUNGS["portable"].bound)}
    assert unseen == set(model.definition.undetectable)


PREPARING = [name for name in registry.target_names() if registry.target(name).prepares]


@pytest.mark.parametrize("target", PREPARING)
def test_a_target_that_is_prepared_for_anywhere_takes_the_graph(it: Specimen, target: str, tmp_path: Path) -> None:
    """In every version that it knows: nothing is found out on the machine with the runtime."""
    found = registry.target(target)
    graphs = dict(it.simplified_graphs)
    versions = found.settings["version"].choices if "version" in found.settings else [None]
    for version in versions:
        options = replace(it.options, extra={"version": version} if version else {})
        assert problems(found, it.program, graphs, options) == [], version
    made = prepare_graphs(found, it.program, graphs, it.options, tmp_path)
    assert made and all(path.is_file() for path in made.values())


def test_options_carry_every_dim(it: Specimen) -> None:
    options = options_of(it.definition, "fp32", 0)
    assert set(options.dims) == {d.name for d in it.definition.dims}
    given = {name for graph in it.definition.graphs for name in it.program.shapes[graph]}
    assert {t.name for t in it.definition.inputs} <= given


def test_the_published_checkpoint_loads_and_is_the_published_one(name: str, data: Path) -> None:
    definition = registry.model(name)
    if definition.checkpoint is None:
        pytest.skip(f"NOT APPLICABLE: {name} has no published checkpoint")
    folder, digest = data / definition.family, definition.checkpoint.sha256
    files = [path for path in (folder.iterdir() if folder.is_dir() else ()) if digest and sha256(path) == digest]
    if not files:
        pytest.skip(f"NO DATA: no file in {data / definition.family} has the digest of {name}'s checkpoint")
    module, weights = define.weighted(definition, str(files[0]), 0)
    assert weights.source == definition.checkpoint.address and weights.licence == definition.checkpoint.licence
    assert len(module.state_dict()) > 0
