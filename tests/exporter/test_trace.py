"""Traced graphs keep every promise, and what cannot be traced is refused with the line that is to blame."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # the second opinion on recurrent layers
import pytest
import torch
from torch import nn
from torch.nn import functional

from exporter import define, reference
from exporter.errors import ExporterError, NotProven, Refused
from exporter.parity import cases as planning
from exporter.spec import Dim, ModelDef, Tensor
from exporter.trace import trace, trace_sizes
from tests.fakes import models

HERE = str(Path(models.__file__))


def define_(
    module: nn.Module | Callable[[], nn.Module], inputs: Sequence[Tensor], outputs: int = 1, dims: Sequence[Dim] = ()
) -> ModelDef:
    build = module if not isinstance(module, nn.Module) else lambda: module
    named = tuple(Tensor(f"y{i}", (1,)) for i in range(outputs))
    return ModelDef("fake", "fake", build, tuple(inputs), named, "s", "l", dims=tuple(dims))  # type: ignore[arg-type]


T = Dim("T", 2, 7, 50)
SIGNAL = Tensor("x", (1, "T", 4))


def traced(definition: ModelDef, folder: Path) -> onnx.ModelProto:
    module = definition.build()
    define.set_eval(module)
    return trace(definition, module, folder / "traced.onnx").load()


def refused(call: Callable[[], Any], code: str) -> ExporterError:
    with pytest.raises(ExporterError) as caught:
        call()
    error = caught.value
    assert error.code == code, error
    assert error.what and error.where and error.why and error.next, error.as_json()
    return error


def line_of(words: str) -> str:
    lines = Path(HERE).read_text().splitlines()
    return f"{HERE}:{next(i for i, text in enumerate(lines, 1) if words in text)}"


# ------------------------------------------------------------------------------------------------ promises


def test_names_dims_and_bytes(tmp_path: Path) -> None:
    definition = define_(models.Plain(), [SIGNAL], dims=[T])
    model = traced(definition, tmp_path)
    assert [v.name for v in model.graph.input] == ["x"] and [v.name for v in model.graph.output] == ["y0"]
    for value in (*model.graph.input, *model.graph.output):
        assert [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] == [1, "T", 4]
    first = (tmp_path / "traced.onnx").read_bytes()
    traced(definition, tmp_path)
    assert (tmp_path / "traced.onnx").read_bytes() == first
    assert str(tmp_path).encode() not in first and HERE.encode() not in first and b"site-packages" not in first


def test_outputs_that_are_inputs_or_each_other(tmp_path: Path) -> None:
    model = traced(define_(models.Aliases(), [SIGNAL], outputs=4, dims=[T]), tmp_path)
    names = [v.name for v in model.graph.output]
    assert names == ["y0", "y1", "y2", "y3"]
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((1, 9, 4)).astype(np.float32)
    same, same_again, made, made_again = session.run(names, {"x": x})
    assert np.array_equal(same, x) and np.array_equal(same_again, x)
    assert np.array_equal(made, x * 2) and np.array_equal(made_again, x * 2)


def test_two_dims_of_one_size_stay_apart(tmp_path: Path) -> None:
    sizes = trace_sizes([Dim("H", 2, 8, 64), Dim("W", 2, 8, 64), Dim("batch", 1, 1, 4)])
    assert len(set(sizes.values())) == 3 and min(sizes.values()) > 1
    inputs = [Tensor("x", (1, "H", "W"))]
    model = traced(define_(models.Plain(0), inputs, dims=[Dim("H", 2, 8, 64), Dim("W", 2, 8, 64)]), tmp_path)
    shape = model.graph.output[0].type.tensor_type.shape
    assert [d.dim_param or d.dim_value for d in shape.dim] == [1, "H", "W"]


def test_a_batch_that_is_one_at_opt_stays_dynamic(tmp_path: Path) -> None:
    dims = [Dim("batch", 1, 1, 8), T]
    model = traced(define_(models.Plain(), [Tensor("x", ("batch", "T", 4))], dims=dims), tmp_path)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch, frames in ((1, 2), (8, 50), (3, 11)):
        assert session.run(None, {"x": np.ones((batch, frames, 4), np.float32)})[0].shape == (batch, frames, 4)


def test_a_fixed_dim_is_a_number(tmp_path: Path) -> None:
    model = traced(define_(models.Plain(), [SIGNAL], dims=[Dim("T", 7, 7, 7)]), tmp_path)
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 7, 4]


# ------------------------------------------------------------------------------------------------ refusals


def test_a_dim_that_froze_names_size_and_line(tmp_path: Path) -> None:
    error = refused(lambda: traced(define_(models.Freezes(), [SIGNAL], dims=[T]), tmp_path), "dim-specialised")
    assert isinstance(error, NotProven) and "T" in error.what and "7" in error.what
    assert line_of("# freezes") in error.where
    assert "--dim T=7" in error.next


def test_a_dim_that_froze_behind_another_names_its_own_line(tmp_path: Path) -> None:
    """Two frozen dims: the line named must freeze the dim named."""
    inputs = [Tensor("x", ("N", "T", 4))]
    error = refused(
        lambda: traced(define_(models.FreezesSecond(), inputs, dims=[Dim("N", 2, 3, 9), T]), tmp_path),
        "dim-specialised",
    )
    assert "T" in error.what and "# freezes second" in error.where, error.where


def test_a_narrowed_dim(tmp_path: Path) -> None:
    error = refused(lambda: traced(define_(models.Narrows(), [SIGNAL], dims=[T]), tmp_path), "dim-narrowed")
    assert "2..20" in error.what and "2:7:50" in error.why and "--dim T=2:7:20" in error.next


def test_dims_that_must_be_equal_name_the_line(tmp_path: Path) -> None:
    """They are traced at two sizes, so that PyTorch itself stumbles over them."""
    inputs = [Tensor("x", (1, "H", 4)), Tensor("z", (1, "W", 4))]
    dims = [Dim("H", 2, 8, 64), Dim("W", 2, 8, 64)]
    error = refused(lambda: traced(define_(models.Merges(), inputs, dims=dims), tmp_path), "trace-failed")
    assert line_of("# merges") in error.where and "must match" in error.what


def test_dims_that_merge_without_a_word(tmp_path: Path) -> None:
    """Three dims that know two sizes: two are traced at the same, and PyTorch makes them one."""
    inputs = [Tensor("w", (1, "B", 4)), Tensor("x", (1, "A", 4)), Tensor("z", (1, "C", 4))]
    dims = [Dim("A", 4, 4, 8, 4), Dim("B", 4, 4, 8, 4), Dim("C", 4, 4, 8, 4)]
    error = refused(lambda: traced(define_(models.MergesLast(), inputs, outputs=2, dims=dims), tmp_path), "dims-merged")
    assert "A" in error.what and "C" in error.what


def test_data_dependent_control_flow_names_the_line(tmp_path: Path) -> None:
    error = refused(lambda: traced(define_(models.Branches(), [SIGNAL], dims=[T]), tmp_path), "data-dependent")
    assert line_of("# branches") in error.where and "torch.where" in error.next


def test_a_defect_of_the_model_is_no_trace_of_pytorch(tmp_path: Path) -> None:
    error = refused(lambda: traced(define_(models.Raises(), [SIGNAL], dims=[T]), tmp_path), "trace-failed")
    assert line_of("# raises") in error.where and "wrong on purpose" in error.what


@pytest.mark.parametrize("module", [models.MutatesBuffer(), models.MutatesInput()], ids=["buffer", "input"])
def test_writing_in_forward_is_refused_by_trace(module: nn.Module, tmp_path: Path) -> None:
    refused(lambda: traced(define_(module, [SIGNAL], dims=[T]), tmp_path), "state-mutated")


@pytest.mark.parametrize("count", [1, 3])
def test_a_wrong_number_of_outputs(count: int, tmp_path: Path) -> None:
    refused(lambda: traced(define_(models.Two(), [SIGNAL], outputs=count, dims=[T]), tmp_path), "wrong-outputs")


# ------------------------------------------------------------------------------------------------ the reference


def referenced(definition: ModelDef, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    """What the reference stage says of a definition."""
    from exporter import registry
    from tests.fakes.lab import Silent

    monkeypatch.setattr(registry, "model", lambda name, options=None: definition)
    build = {"model": "fake", "options": {}, "dims": [], "checkpoint": None, "seed": 0}
    request = {"build": build, "samples": [], "folder": str(folder), "planned": True}
    return reference.write_cases(request, Silent())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("module", "code"),
    [
        pytest.param(models.Random, "non-deterministic", id="random"),
        pytest.param(models.MutatesInput, "input-mutated", id="input"),
        pytest.param(models.MutatesBuffer, "buffer-mutated", id="buffer"),
        pytest.param(models.StaysInTrain, "train-mode", id="train"),
        pytest.param(models.BatchStatistics, "batch-statistics", id="batch-statistics"),
        pytest.param(models.NanWeights, "nan-weights", id="nan"),
        pytest.param(models.Two, "wrong-outputs", id="outputs"),
    ],
)
@pytest.mark.parametrize("large", ["", "1"], ids=["small", "large"])  # one copy of the weights, or two
def test_what_cannot_be_judged_is_refused(
    module: Any, code: str, large: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EXPORTER_EXTERNAL_FROM", large)
    error = refused(lambda: referenced(define_(module, [SIGNAL], dims=[T]), monkeypatch, tmp_path), code)
    assert isinstance(error, (NotProven, Refused)) and error.exit_code in (1, 2)
    assert "NaN" not in error.what or "1 values" in error.what


@pytest.mark.parametrize(
    ("module", "line"),
    [
        (models.MutatesInput, "x.mul_(2)"),
        (models.MutatesBuffer, "self.calls += 1"),
        (models.TrainsItsNorm, "return self.norm("),
        (models.Random, "rand"),
        (models.Counts, "self.calls += 1"),
    ],
)
def test_what_writes_or_draws_is_named_with_its_line_and_part(
    module: Any, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    it = define_(lambda: torch.nn.Sequential(torch.nn.Identity(), module()), [SIGNAL], dims=[T])
    with pytest.raises(NotProven, match="two runs" if module is models.Random else "forward writes to") as caught:
        referenced(it, monkeypatch, tmp_path)
    assert line in caught.value.where and "smallest part that does: 1" in caught.value.where


def test_a_float32_only_model_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    value = referenced(define_(models.Float32Only, [SIGNAL], dims=[T]), monkeypatch, tmp_path)
    assert value["reference"] == "float32" and "float64 does not run" in value["notes"][0]


def test_tensors_made_inside_forward_follow_the_reference_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``module.double()`` alone fails on these: the default type changes too."""
    value = referenced(define_(models.MakesTensors, [SIGNAL], dims=[T]), monkeypatch, tmp_path)
    assert value["reference"] == "float64"
    from exporter.bundle import read_tensors

    tensors = read_tensors(Path(value["cases"][0]["file"]))
    assert tensors["reference/y0"].dtype == np.float64
    assert torch.get_default_dtype() is torch.float32
    relative, largest, _ = tensors["noise/y0"]
    assert 0 < relative < 1e-6 and 0 < largest < 1e-5


def test_the_reference_is_exact_where_the_answer_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    value = referenced(define_(models.Third, [SIGNAL], dims=[T]), monkeypatch, tmp_path)
    from exporter.bundle import read_tensors

    for case in value["cases"]:
        tensors = read_tensors(Path(case["file"]))
        assert np.array_equal(tensors["reference/y0"], tensors["input/x"].astype(np.float64) / 3)


def test_random_that_hides_in_train_mode_is_no_alarm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert referenced(define_(models.Dropout, [SIGNAL], dims=[T]), monkeypatch, tmp_path)["cases"]


# ------------------------------------------------------------------------------------------------ recurrent layers

KINDS = {"GRU": nn.GRU, "LSTM": nn.LSTM, "RNN-tanh": nn.RNN, "RNN-relu": functools.partial(nn.RNN, nonlinearity="relu")}
OPTIONS = [
    {"num_layers": layers, "bidirectional": both, "batch_first": first, "bias": bias}
    for layers, both, first, bias in itertools.product((1, 2, 3), (False, True), (False, True), (True, False))
]
FEW = [OPTIONS[i] for i in (3, 14, 23)]


def recurrent_definition(kind: str, options: dict[str, Any], explicit: bool) -> tuple[ModelDef, nn.Module]:
    torch.manual_seed(0)
    layer = KINDS[kind](3, 5, **options).eval()
    first = options.get("batch_first", False)
    x = Tensor("x", ("B", "T", 3) if first else ("T", "B", 3))
    rows = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    states = [Tensor(name, (rows, "B", 5)) for name in (("h0", "c0") if kind == "LSTM" else ("h0",))]
    module = models.Recurrent(layer, kind == "LSTM")
    count = 3 if kind == "LSTM" else 2
    dims = [Dim("T", 1, 6, 40), Dim("B", 1, 3, 8)]
    return define_(module, [x, *states] if explicit else [x], count, dims), module.eval()


def compare_with_eager(definition: ModelDef, module: nn.Module, model: onnx.ModelProto, references: bool) -> None:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for sizes in ({"T": 1, "B": 1}, {"T": 6, "B": 3}, {"T": 17, "B": 2}):
        case = planning.Case(f"{sizes}", "generated", "normal", sizes)
        inputs = planning.generated_inputs(definition, case)
        with torch.no_grad():
            wanted = [y.numpy() for y in module(*map(torch.from_numpy, inputs.values()))]
        found = session.run(None, inputs)
        runs = [found]
        if references and sizes["T"] == 6:
            from onnx.reference import ReferenceEvaluator

            runs.append(ReferenceEvaluator(model).run(None, inputs))
        for run in runs:
            for y, want in zip(run, wanted, strict=True):
                assert y.shape == want.shape
                np.testing.assert_allclose(y, want, rtol=0, atol=2e-6)


@pytest.mark.parametrize("explicit", [False, True], ids=["zeros", "state"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", FEW, ids=lambda o: "-".join(str(int(v)) for v in o.values()))
def test_recurrent_layers(kind: str, options: dict[str, Any], explicit: bool, tmp_path: Path) -> None:
    definition, module = recurrent_definition(kind, options, explicit)
    compare_with_eager(definition, module, traced(definition, tmp_path), references=False)


@pytest.mark.slow
@pytest.mark.parametrize("explicit", [False, True], ids=["zeros", "state"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(str(int(v)) for v in o.values()))
def test_recurrent_layers_of_every_option(kind: str, options: dict[str, Any], explicit: bool, tmp_path: Path) -> None:
    definition, module = recurrent_definition(kind, options, explicit)
    one_way = not options["bidirectional"] and kind != "RNN-relu"
    # onnx.reference has no backward direction and no Relu in RNN: there ONNX Runtime is the only second opinion.
    compare_with_eager(definition, module, traced(definition, tmp_path), references=one_way)


# onnx.reference knows no Relu in RNN.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "RNN-relu"])
def test_the_reference_evaluator_agrees(kind: str, tmp_path: Path) -> None:
    definition, module = recurrent_definition(kind, {"num_layers": 2, "batch_first": True}, True)
    compare_with_eager(definition, module, traced(definition, tmp_path), references=True)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unbatched_recurrent_layer(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = models.Recurrent(KINDS[kind](3, 5, bidirectional=True), kind == "LSTM").eval()
    definition = define_(module, [Tensor("x", ("T", 3))], 3 if kind == "LSTM" else 2, [Dim("T", 1, 6, 40)])
    compare_with_eager(definition, module, traced(definition, tmp_path), references=False)


def test_a_subclass_of_a_recurrent_layer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = models.Recurrent(models.Subclass(3, 5, batch_first=True), False).eval()
    definition = define_(module, [Tensor("x", ("B", "T", 3))], 2, [Dim("T", 1, 6, 40), Dim("B", 1, 3, 8)])
    compare_with_eager(definition, module, traced(definition, tmp_path), references=False)


def test_tracing_leaves_eager_as_it_was(tmp_path: Path) -> None:
    definition, module = recurrent_definition("GRU", {"batch_first": True}, False)
    x, before = torch.ones(2, 5, 3), torch._VF.gru
    wanted = module(x)
    traced(definition, tmp_path)
    assert torch._VF.gru is before
    assert all(torch.equal(a, b) for a, b in zip(module(x), wanted, strict=True))


def test_a_packed_sequence_is_refused(tmp_path: Path) -> None:
    definition = define_(models.Packed(), [Tensor("x", ("B", "T", 3))], dims=[Dim("T", 2, 6, 40), Dim("B", 2, 3, 8)])
    error = refused(lambda: traced(definition, tmp_path), "packed-sequence")
    assert "packs" in error.what and "padded" in error.next


def test_a_projected_lstm_is_refused(tmp_path: Path) -> None:
    module = models.Recurrent(nn.LSTM(3, 5, proj_size=2), True).eval()
    definition = define_(module, [Tensor("x", ("T", "B", 3))], 3, [Dim("T", 2, 6, 40), Dim("B", 1, 3, 8)])
    error = refused(lambda: traced(definition, tmp_path), "projected-lstm")
    assert "proj_size" in error.what and "Linear" in error.next


@pytest.mark.slow
def test_the_stock_exporter_freezes_the_time_axis() -> None:
    """Why ``exporter/recurrent.py`` exists. When this fails, PyTorch has mended it: look whether ours can go."""
    module = define.eager({"model": "gtcrn", "options": {}, "checkpoint": None, "seed": 0})
    shapes, example = ({2: torch.export.Dim.DYNAMIC},), torch.zeros(1, 257, 63, 2)
    try:
        program = torch.onnx.export(module, (example,), dynamo=True, dynamic_shapes=shapes, verbose=False)
        assert program is not None
        session = ort.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        session.run(None, {name: np.zeros((1, 257, 11, 2), np.float32)})
    except Exception:
        return
    pytest.fail("the stock exporter kept the time axis of GTCRN dynamic")


# ------------------------------------------------------------------------------------------------ steps and parts


class Halves(nn.Module):
    """A U-net's way: down by four, up again, added to where it came from."""

    def forward(self, x: torch.Tensor, f: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        small = functional.avg_pool2d(x, 4) + f
        return functional.interpolate(small, scale_factor=4.0) + x, small


class HalvesWrong(nn.Module):
    """The same, for features an eighth as large: no size fits both."""

    def forward(self, x: torch.Tensor, f: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, functional.avg_pool2d(x, 8) + f


def pictures(minimum: int = 32, step: int = 32) -> ModelDef:
    return ModelDef(
        name="pictures", family="fakes", build=Halves, source="here", licence="none",
        inputs=(Tensor("x", (1, 2, "H", "W")), Tensor("f", (1, 2, "H/4", "W/4"))),
        outputs=(Tensor("y", (1, 2, "H", "W")), Tensor("small", (1, 2, "H/4", "W/4"))),
        dims=(Dim("H", minimum, 64, 128, step), Dim("W", minimum, 64, 160, step)),
    )  # fmt: skip


def test_a_step_is_a_promise_and_sizes_keep_the_definitions_words(tmp_path: Path) -> None:
    model = trace(pictures(), Halves().eval(), tmp_path / "g.onnx").load()
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "x": [1, 2, "H", "W"], "f": [1, 2, "H/4", "W/4"], "y": [1, 2, "H", "W"], "small": [1, 2, "H/4", "W/4"],
    }  # fmt: skip
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for height, width in ((32, 32), (96, 160), (128, 64)):
        feeds = {"x": np.ones((1, 2, height, width), np.float32)}
        feeds["f"] = np.ones((1, 2, height // 4, width // 4), np.float32)
        y, small = session.run(["y", "small"], feeds)
        assert y.shape == (1, 2, height, width) and (y == 3).all() and small.shape[2:] == (height // 4, width // 4)


def test_sizes_that_no_promise_makes_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotProven) as caught:
        trace(pictures(), HalvesWrong().eval(), tmp_path / "g.onnx")
    assert caught.value.code in ("dim-specialised", "dims-merged", "trace-failed")


def test_a_broken_promise_is_judged_with_size_and_line(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor, f: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x * float(int(x.shape[2])), f * 2  # fixes the height

    with pytest.raises(NotProven) as caught:
        trace(pictures(), Fixed().eval(), tmp_path / "g.onnx")
    assert caught.value.code == "dim-specialised" and "dim H froze" in caught.value.what
    assert "fixes the height" in str(caught.value.where)


def test_a_buffer_with_an_inputs_name_is_another_value(tmp_path: Path) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("x", torch.full((4,), 3.0))

        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return given * self.x

    model = traced(define_(Named(), [SIGNAL], dims=[T]), tmp_path)
    names = [value.name for value in (*model.graph.input, *model.graph.initializer)]
    assert len(set(names)) == len(names) == 2
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.ones((1, 5, 4), np.float32)})
    assert (y == 3).all()
