"""Programs: several graphs and their loop as one runner; how often a part runs is chosen at every run."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata

from exporter import program
from exporter.errors import Refused
from exporter.spec import Dim, ModelDef, Part, State, Step, Tensor
from exporter.target import Artifact, Options, Ran

Arrays = Mapping[str, np.ndarray]


class Part_(BaseRunner):
    """A graph written in numpy, that counts its runs."""

    def __init__(self, inputs: list[str], function: Any, breaks: bool = False) -> None:
        super().__init__(prefix="part-runner")
        self.inputs, self.function, self.runs, self.breaks = inputs, function, 0, breaks

    def activate_impl(self) -> None:
        if self.breaks:
            raise RuntimeError("no memory")

    def get_input_metadata_impl(self) -> Any:
        metadata = TensorMetadata()
        for name in self.inputs:
            metadata.add(name, np.dtype(np.float32), (1,))
        return metadata

    def infer_impl(self, feed_dict: Arrays) -> OrderedDict[str, np.ndarray]:
        assert set(feed_dict) == set(self.inputs), "a graph is given its own inputs and no others"
        self.runs += 1
        return OrderedDict(self.function(**feed_dict))


STEPS = (
    Step("start"),
    Step("double", "count", (State("h", "h_next"),)),
    Step("end"),
)
PROGRAM = program.Program(
    STEPS,
    {"start": {"x": (1,)}, "double": {"h": (1,), "x": (1,)}, "end": {"h": (1,)}},
    {"start": ["h"], "double": ["h_next"], "end": ["y"]},
    ("y",),
)


def parts(**changes: Any) -> dict[str, Part_]:
    made = {
        "start": Part_(["x"], lambda x: {"h": x + 1}),
        "double": Part_(["h", "x"], lambda h, x: {"h_next": 2 * h + x}),
        "end": Part_(["h"], lambda h: {"y": -h}),
    }
    return made | changes


def test_values_flow_through_steps_and_state() -> None:
    runner = program.ProgramRunner(PROGRAM, parts())
    with runner:
        for count in (1, 2, 5):
            expected = 4.0
            for _ in range(count):
                expected = 2 * expected + 3
            outputs = runner.infer({"x": np.float32([3]), "count": np.array(count)}, check_inputs=False)
            assert list(outputs) == ["y"] and outputs["y"] == -expected


def test_a_second_run_starts_anew() -> None:
    with program.ProgramRunner(PROGRAM, parts()) as runner:
        feeds = {"x": np.float32([3]), "count": np.array(4)}
        first = runner.infer(feeds, check_inputs=False)["y"].copy()
        assert runner.infer(feeds, check_inputs=False)["y"] == first


def test_a_fixed_repeat_needs_no_count() -> None:
    fixed = dataclasses.replace(PROGRAM, steps=(STEPS[0], dataclasses.replace(STEPS[1], repeat=3), STEPS[2]))
    made = parts()
    with program.ProgramRunner(fixed, made) as runner:
        runner.infer({"x": np.float32([1])}, check_inputs=False)
        assert [made[name].runs for name in ("start", "double", "end")] == [1, 3, 1]
        assert list(runner.get_input_metadata()) == ["x"]


def test_its_inputs_are_those_that_no_step_gives() -> None:
    with program.ProgramRunner(PROGRAM, parts()) as runner:
        assert list(runner.get_input_metadata()) == ["x", "count"]


@pytest.mark.parametrize("count", [None, 0, -1, [2, 3]])
def test_a_count_that_counts_nothing_is_refused(count: Any) -> None:
    feeds = {"x": np.float32([1])} | ({} if count is None else {"count": np.array(count)})
    with program.ProgramRunner(PROGRAM, parts()) as runner, pytest.raises(Refused) as caught:
        runner.infer(feeds, check_inputs=False)
    assert caught.value.code == "bad-sample" and "count" in caught.value.what


def test_a_part_that_does_not_open_closes_the_others() -> None:
    made = parts(end=Part_(["h"], None, breaks=True))
    with pytest.raises(RuntimeError, match="no memory"):
        program.ProgramRunner(PROGRAM, made).activate()
    assert not any(part.is_active for part in made.values())


def test_it_travels_as_json() -> None:
    assert program.Program.from_json(PROGRAM.as_json()).as_json() == PROGRAM.as_json()
    assert program.Program.from_json(PROGRAM.as_json()).steps == STEPS


def looped() -> ModelDef:
    images, h = Tensor("x", (1, 3, "H", "W"), "x"), Tensor("h", (1, 8, "H/4", "W/4"), "h")
    after, y = Tensor("h_next", h.shape, "h"), Tensor("y", (1, 1, "H", "W"), "y")
    return ModelDef(
        name="looped", family="looped", build=lambda: None, inputs=(images,), outputs=(y,),  # type: ignore[arg-type,return-value]
        dims=(Dim("H", 32, 64, 96, 32), Dim("W", 32, 64, 96, 32), Dim("n", 1, 4, 8)), source="here", licence="none",
        parts=(
            Part("encoder", lambda m: m, (images,), (h,)),
            Part("update", lambda m: m, (h,), (after,), "n", (State("h", "h_next"),)),
            Part("upsampler", lambda m: m, (h,), (y,)),
        ),
    )  # fmt: skip


def test_a_definition_gives_its_program_and_its_graphs() -> None:
    definition = looped()
    assert definition.graphs == ("encoder", "update", "upsampler") and definition.repeats == ("n",)
    found = program.program_of(definition)
    assert found.steps[1] == Step("update", "n", (State("h", "h_next"),)) and found.outputs == ("y",)
    assert found.shapes["update"] == {"h": (1, 8, "H/4", "W/4")}
    update = definition.graph("update")
    assert update.name == "looped/update" and [dim.name for dim in update.dims] == ["H", "W"]
    assert not found.single


def test_a_model_of_one_graph_is_its_graphs_runner() -> None:
    alone = dataclasses.replace(looped(), parts=(), dims=looped().dims[:2])
    found = program.program_of(alone)
    assert found.single and found.graphs == ("model",)
    assert not isinstance(program._runner(found, lambda name: Part_(["x"], None)), program.ProgramRunner)


class FilesTarget:
    """Compiles a graph into a file that says which graph and which shapes it was."""

    name = "files"

    def compile(self, graph: Any, options: Options, folder: Any, progress: Any = None) -> Artifact:
        path = folder / "model.bin"
        path.write_text(f"{graph.path.name} {sorted(options.shapes)}")
        return Artifact("fp32", {"bin": path}, ("bin",), {"files": "1"}, "fp32", (f"about {graph.path.name}",))

    def open(self, artifact: Artifact, options: Options, form: str | None = None) -> BaseRunner:
        return Part_([artifact.files[form or "bin"].read_text(), *options.shapes], None)

    def ran(self, runner: Any) -> Ran:
        return Ran("bf16" if "update" in runner.inputs[0] else "fp32", {"fp32": 2}, {"cpu": 3})


def test_a_target_compiles_and_opens_one_graph_at_a_time(tmp_path: Any) -> None:
    target: Any = FilesTarget()
    definition = looped()
    steps = program.program_of(definition)
    graphs = {name: tmp_path / f"{name}.onnx" for name in definition.graphs}
    artifact = program.compile_graphs(target, steps, graphs, Options(), tmp_path / "made")
    assert set(artifact.files) == {"encoder.bin", "update.bin", "upsampler.bin"}
    assert artifact.forms == ("bin",) and "update: about update.onnx" in artifact.advice
    runner = program.open_artifact(target, steps, artifact, Options(), "bin")
    assert isinstance(runner, program.ProgramRunner)
    assert runner.parts["update"].inputs == ["update.onnx ['h']", "h"]
    found = program.ran(target, runner)
    assert found.precision == "bf16+fp32", "one graph in another precision is a mixed model"
    assert found.layers == {"fp32": 6} and found.providers == {"cpu": 9}
