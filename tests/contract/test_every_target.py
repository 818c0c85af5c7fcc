"""What every target must satisfy; a new file in ``targets/`` is under it without a line here."""

from __future__ import annotations

import dataclasses
import re
import resource
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from exporter import define, registry
from exporter.graph import Graph
from exporter.parity.ladder import RUNGS
from exporter.preflight import options_of
from exporter.spec import Dim, ModelDef, Tensor
from exporter.target import Artifact, Availability, Options, Target
from exporter.trace import trace
from tests.fakes import models

TARGETS = registry.target_names()
T = Dim("T", 2, 16, 60)


class Small(torch.nn.Module):
    """A convolution, a GRU and a gate, two outputs: what a runtime may get wrong, in a millisecond."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv1d(4, 6, 3, padding=1)
        self.gru = models.Recurrent(torch.nn.GRU(6, 5, batch_first=True), False)

    def forward(self, x: torch.Tensor, gain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, last = self.gru(torch.relu(self.conv(x.transpose(1, 2))).transpose(1, 2))
        return y * torch.sigmoid(gain), last


@pytest.fixture(scope="session")
def definition() -> ModelDef:
    inputs = (Tensor("x", (1, "T", 4)), Tensor("gain", (1, 1, 5)))
    outputs = (Tensor("y", (1, "T", 5)), Tensor("last", (1, 1, 5)))
    return ModelDef("small", "fake", Small, inputs, outputs, "s", "l", dims=(T,))


@pytest.fixture(scope="session")
def graph(definition: ModelDef, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    module = Small()
    define.seed_weights(module, 0)
    define.set_eval(module)
    return trace(definition, module, tmp_path_factory.mktemp("small") / "small.onnx")


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    found = registry.target(request.param)
    if not found.available().present:
        pytest.skip(f"RUNTIME ABSENT: {request.param}: {found.available().reason}")
    return found


@pytest.fixture(scope="session")
def options(definition: ModelDef) -> Options:
    return options_of(definition, "fp32", 1)


@pytest.fixture(scope="session")
def made() -> dict[str, Artifact]:
    return {}


@pytest.fixture
def artifact(
    target: Target, graph: Graph, options: Options, made: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    if target.name not in made:
        made[target.name] = target.compile(graph, options, tmp_path_factory.mktemp(target.name))
    return made[target.name]


def feeds(frames: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"x": (1, frames, 4), "gain": (1, 1, 5)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def run(runner: Any, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in runner.infer(given, check_inputs=False).items()}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


# ---- protocol, whether the runtime is here or not


@pytest.mark.parametrize("name", TARGETS)
def test_what_it_says_of_itself(name: str) -> None:
    found = registry.target(name)
    assert found.name == name and re.fullmatch(r"[a-z][a-z0-9-]*", name)
    assert found.precisions and all(len(types) == 2 and all(types) for types in found.precisions.values())
    assert found.rung in RUNGS
    available = found.available()
    assert isinstance(available, Availability)
    assert available.version if available.present else (available.reason and available.next)
    ranks = [t.runs_graphs for t in map(registry.target, TARGETS) if t.runs_graphs is not None]
    assert len(set(ranks)) == len(ranks), "two targets of one rank: which is asked first would be chance"


# ---- artifacts


def test_compile_leaves_what_it_lists(target: Target, artifact: Artifact) -> None:
    assert artifact.precision == "fp32" and artifact.stored == target.precisions["fp32"][0]
    assert artifact.forms and set(artifact.forms) <= set(artifact.files)
    assert all(path.is_file() and path.stat().st_size for path in artifact.files.values())
    assert artifact.fingerprint and all(artifact.fingerprint.values())


def test_the_graph_is_left_alone(target: Target, graph: Graph, options: Options, tmp_path: Path) -> None:
    before = graph.digest()
    target.compile(graph, options, tmp_path)
    assert graph.digest() == before


def test_weights_beside_the_graph_are_the_same_weights(
    target: Target, artifact: Artifact, graph: Graph, options: Options, tmp_path: Path
) -> None:
    """All that is needed is in the artifact: the graph and its data are gone before it is opened."""
    place = tmp_path / "graph"
    for folder in (place, tmp_path / "artifact"):
        folder.mkdir()
    ir.save(ir.from_proto(graph.load()), place / "g.onnx", external_data="g.onnx.data", size_threshold_bytes=0)
    beside = Graph(place / "g.onnx")
    assert len(beside.files) == 2 and target.problems(beside, options) == []
    before = beside.digest()
    made = target.compile(beside, options, tmp_path / "artifact")
    assert beside.digest() == before
    shutil.rmtree(place)
    assert all((tmp_path / "artifact") in path.parents for path in made.files.values())
    left = {path for path in (tmp_path / "artifact").iterdir() if path.suffix == ".data"}
    assert left == {path for role, path in made.files.items() if role in target.beside and path.suffix == ".data"}
    for form in made.forms:
        with target.open(made, options, form) as runner, target.open(artifact, options) as right:
            given = feeds(9)
            found, expected = run(runner, given), run(right, given)
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


def test_no_problem_in_a_good_graph_and_one_per_bad_node(
    target: Target, graph: Graph, options: Options, tmp_path: Path
) -> None:
    import onnx

    assert target.problems(graph, options) == []
    if type(target).problems is Target.problems:
        pytest.skip(f"NOT APPLICABLE: {target.name} looks for no problems before compiling")
    model = graph.load()
    for index in range(2):
        model.graph.node.append(onnx.helper.make_node("NoSuchOperator", ["x"], [f"nothing{index}"], name=f"bad{index}"))
        model.graph.output.append(onnx.helper.make_tensor_value_info(f"nothing{index}", 1, [1, "T", 4]))
    path = tmp_path / "bad.onnx"
    path.write_bytes(model.SerializeToString())
    found = target.problems(Graph(path), options)
    assert len(found) == 2, "all at once, not one per attempt"
    assert all(problem.node and problem.reason and problem.remedy for problem in found)


def test_every_form_answers_by_name(target: Target, artifact: Artifact, options: Options, graph: Graph) -> None:
    answers = []
    for form in artifact.forms:
        with target.open(artifact, options, form) as runner:
            metadata = runner.get_input_metadata()
            assert {name: np.dtype(metadata[name].dtype) for name in metadata} == {
                "x": np.dtype("float32"), "gain": np.dtype("float32"),
            }  # fmt: skip
            found = run(runner, dict(reversed(feeds(16).items())))
            assert {name: (y.shape, y.dtype.name) for name, y in found.items()} == {
                "y": ((1, 16, 5), "float32"), "last": ((1, 1, 5), "float32"),
            }  # fmt: skip
            assert target.ran(runner).precision == "fp32"
            assert sum(target.ran(runner).layers.values()) > 0 and sum(target.ran(runner).providers.values()) > 0
            answers.append(found)
    module = Small()
    define.seed_weights(module, 0)
    with torch.no_grad():
        wanted = module.eval()(*map(torch.from_numpy, feeds(16).values()))
    for found in answers:
        for name, want in zip(("y", "last"), wanted, strict=True):
            np.testing.assert_allclose(found[name], want.numpy(), rtol=0, atol=2e-6)


def test_nothing_is_loaded_before_it_is_activated(target: Target, artifact: Artifact, options: Options) -> None:
    gone = dataclasses.replace(artifact, files={role: Path("/nowhere") / p.name for role, p in artifact.files.items()})
    runner = target.open(gone, options)  # does not look
    with pytest.raises(Exception, match=r"."):
        runner.activate()


def test_it_repeats_itself(target: Target, artifact: Artifact, options: Options) -> None:
    for form in artifact.forms:
        with target.open(artifact, options, form) as first:
            a, again = run(first, feeds(16)), run(first, feeds(16))
        with target.open(artifact, options, form) as second:
            assert same(a, again) and same(a, run(second, feeds(16)))


def test_what_it_gave_stays_as_it_was(target: Target, artifact: Artifact, options: Options) -> None:
    """Runs A, then B: A's answer must not become B's (buffers that are used again)."""
    with target.open(artifact, options) as runner:
        given = feeds(16, 1)
        held = dict(runner.infer(given, check_inputs=False))
        kept = {name: value.copy() for name, value in held.items()}
        others = [run(runner, feeds(16, seed)) for seed in (2, 3)]
        assert all(np.array_equal(held[name], kept[name]) for name in kept)
        assert not same(kept, others[0]) and not same(others[0], others[1])
        assert same(run(runner, feeds(16, 1)), kept)
        assert all(np.array_equal(given[name], value) for name, value in feeds(16, 1).items()), "it wrote to its input"


def test_two_runners_at_once(target: Target, artifact: Artifact, options: Options) -> None:
    wanted, wrong = {}, []
    with target.open(artifact, options) as first, target.open(artifact, options) as second:
        for seed in range(4):
            wanted[seed] = run(first, feeds(16, seed))

        def work(runner: Any, seeds: tuple[int, int]) -> None:
            for index in range(10):
                seed = seeds[index % 2]
                if not same(run(runner, feeds(16, seed)), wanted[seed]):
                    wrong.append(seed)

        threads = [threading.Thread(target=work, args=a) for a in ((first, (0, 1)), (second, (2, 3)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_every_size_in_the_range(target: Target, artifact: Artifact, options: Options) -> None:
    for form in artifact.forms:
        with target.open(artifact, options, form) as runner:
            for frames in (T.opt, T.min, T.max, 31, T.min):
                outputs = run(runner, feeds(frames))
                assert outputs["y"].shape == (1, frames, 5)
                # Causal in time: the first frames do not depend on how many follow, but for the convolution's edge.
                if frames > 4:
                    longer = feeds(frames)
                    shorter = {"x": longer["x"][:, :4].copy(), "gain": longer["gain"]}
                    np.testing.assert_allclose(run(runner, shorter)["y"][:, :3], outputs["y"][:, :3], atol=1e-6)


def test_a_wrong_input_is_refused(target: Target, artifact: Artifact, options: Options) -> None:
    good = feeds(16)
    for bad in (
        {"x": good["x"]},
        good | {"x": good["x"].astype(np.float64)},
        good | {"x": good["x"][..., :3].copy()},
        good | {"x": good["x"][0]},
    ):
        with target.open(artifact, options) as runner, pytest.raises(Exception, match=r"."):
            runner.infer(bad)


def test_a_truncated_artifact_is_refused(target: Target, artifact: Artifact, options: Options, tmp_path: Path) -> None:
    for form in artifact.forms:
        for role in {form, "bin"} & set(artifact.files):
            for part in (0.0, 0.5, 0.9):
                damaged = tmp_path / f"{role}-{part}{artifact.files[role].suffix}"
                content = artifact.files[role].read_bytes()
                damaged.write_bytes(content[: int(len(content) * part)])
                cut = dataclasses.replace(artifact, files={**artifact.files, role: damaged})
                try:
                    with target.open(cut, options, form) as runner:
                        found = run(runner, feeds(16))
                except Exception:
                    continue
                # An empty file is a valid empty protobuf: it answers nothing, and missing outputs are a FAIL.
                assert found == {} and part == 0.0, f"{role} cut to {part:.0%} was run"


def test_the_timer_gives_what_infer_gives(target: Target, artifact: Artifact, options: Options) -> None:
    for form in artifact.forms:
        with target.open(artifact, options, form) as runner:
            wanted = run(runner, feeds(16, 5))
            call = target.timer(runner, feeds(16, 5))
            for _ in range(3):
                assert same({name: np.array(value) for name, value in call().items()}, wanted)
            assert target.ran(runner).precision == "fp32"
            assert same(run(runner, feeds(16, 5)), wanted)


def test_the_timer_really_runs(target: Target, artifact: Artifact, options: Options) -> None:
    """Two bound calls on two inputs: an answer from memory would be the other's."""
    with target.open(artifact, options) as runner:
        a, b = run(runner, feeds(16, 1)), run(runner, feeds(16, 2))
        first, second = target.timer(runner, feeds(16, 1)), target.timer(runner, feeds(16, 2))
        for _ in range(2):
            assert same({n: np.array(v) for n, v in first().items()}, a)
            assert same({n: np.array(v) for n, v in second().items()}, b)


def test_two_hundred_runs_do_not_grow(target: Target, artifact: Artifact, options: Options) -> None:
    def resident() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    with target.open(artifact, options) as runner:
        for _ in range(50):
            run(runner, feeds(16))
        before = resident()
        for _ in range(200):
            run(runner, feeds(16))
        assert resident() - before < 8 << 20


def test_sizes_outside_the_range_are_refused_or_computed_rightly(
    target: Target, artifact: Artifact, options: Options, request: pytest.FixtureRequest
) -> None:
    """A runtime that knows the bounds refuses; one that does not must still be right, for nobody else looks."""
    outside = T.max + 5
    module = Small()
    define.seed_weights(module, 0)
    with torch.no_grad():
        wanted = module.eval()(*map(torch.from_numpy, feeds(outside).values()))[0].numpy()
    with target.open(artifact, options) as runner:
        try:
            found = run(runner, feeds(outside))["y"]
        except Exception:
            return
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6)


def test_our_side_refuses_sizes_outside_the_range(definition: ModelDef, tmp_path: Path) -> None:
    from exporter import samples
    from exporter.errors import Refused

    for frames in (T.min - 1, T.max + 1):
        given = samples.prepare(definition, feeds(frames), tmp_path)
        with pytest.raises(Refused) as caught:
            samples.sizes_of(definition, given.inputs, tmp_path)
        assert caught.value.code == "bad-sample" and "T" in caught.value.what and str(frames) in caught.value.what


def test_graph_runners_run_plain_graphs(target: Target, graph: Graph, options: Options) -> None:
    if target.runs_graphs is None:
        with pytest.raises(NotImplementedError):
            target.open_graph(graph, options)
        return
    with target.open_graph(graph, options) as runner:
        assert run(runner, feeds(9))["y"].shape == (1, 9, 5)


def test_the_registry_finds_them_by_their_files() -> None:
    root = registry.ROOT / "targets"
    files = {path.stem.replace("_", "-") for path in root.glob("*.py") if not path.stem.startswith("_")}
    assert files <= set(TARGETS)


def test_availability_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where nothing is installed."""
    from importlib.metadata import PackageNotFoundError

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    for name in TARGETS:
        found = registry.target(name)
        module: Callable[..., Any] = __import__("sys").modules[type(found).__module__]
        monkeypatch.setattr(module, "version", absent)
        available = found.available()
        assert not available.present and available.reason and "pip install" in available.next
