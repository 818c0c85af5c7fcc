"""The child's side: what is inside the clock, and what makes an answer wrong."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from exporter.errors import Incomplete, Refused
from exporter.latency import eager, worker
from exporter.latency.clock import PROCESSOR, WALL
from exporter.latency.opened import Opened, spoil
from exporter.latency.worker import Session, judged, relative_l2

REFERENCE = {"y": np.array([1.0, -2.0, 3.0])}
ALLOWED = {"y": 1e-5}


class FakeClock:
    """Advances by a nanosecond per reading and by whatever a call costs."""

    def __init__(self) -> None:
        self.now = 0

    def ns(self) -> int:
        self.now += 1
        return self.now


class Model:
    """A runtime that writes into one buffer of its own, as bound runtimes do."""

    def __init__(self, clock: FakeClock, cost: int = 1000) -> None:
        self.clock, self.cost, self.calls = clock, cost, 0
        self.buffer = np.zeros(3, dtype=np.float32)
        self.sabotage: Callable[[int], bool] = lambda call: False
        self.inside: list[tuple[bool, int]] = []

    def __call__(self) -> Mapping[str, np.ndarray]:
        self.calls += 1
        self.clock.now += self.cost
        self.inside.append((gc.isenabled(), self.calls))
        if not self.sabotage(self.calls):
            self.buffer[:] = REFERENCE["y"]
        return {"y": self.buffer}

    def opened(self, feeds: Mapping[str, np.ndarray]) -> Opened:
        return Opened(self, lambda: self, dict, lambda last: spoil(last, feeds), lambda: {"precision": "fp32"}, list)


class Conversation:
    """A channel with a prepared list of commands."""

    def __init__(self, *commands: dict[str, Any]) -> None:
        self.commands, self.sent = list(commands), []

    def send(self, value: Any) -> None:
        self.sent.append(json.loads(json.dumps(value, allow_nan=False)))

    def receive(self) -> Any:
        return self.commands.pop(0) if self.commands else None


def made(opened: Opened, feeds: Mapping[str, np.ndarray], clock: FakeClock) -> Session:
    untouched = worker.digests(feeds)
    return Session(opened, feeds, untouched=untouched, references=REFERENCE, allowed=ALLOWED, clock=clock)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def model(clock: FakeClock) -> Model:
    return Model(clock)


@pytest.fixture
def session(model: Model, clock: FakeClock) -> Session:
    feeds = {"x": np.ones(2, dtype=np.float32)}
    return made(model.opened(feeds), feeds, clock)


def test_a_block_times_its_calls_and_not_those_that_settle(session: Session, model: Model) -> None:
    before = model.calls
    assert session.block(calls=4, settle=3, each=True) == {"ns": [1001] * 4}
    assert model.calls - before == 7
    assert session.block(calls=10, settle=0, each=False) == {"ns": [10_001]}


def test_a_block_is_timed_by_the_clock_that_was_asked_for(
    session: Session, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = FakeClock()
    monkeypatch.setattr(worker, "Processor", lambda: other)
    asked = {"do": "block", "calls": 4, "settle": 0, "each": True}
    assert session.obey(asked | {"clock": PROCESSOR}) == {"ns": [1] * 4}, "the model's work is on the other clock"
    assert session.obey(asked | {"clock": WALL}) == session.obey(asked) == {"ns": [1001] * 4}


def test_the_collector_does_not_run_inside_a_block(session: Session, model: Model) -> None:
    assert gc.isenabled()
    model.inside.clear()
    session.block(calls=4, settle=2, each=True)
    assert [enabled for enabled, _ in model.inside] == [False] * 6
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("cost", "runs"),
    [(1_000_000, 1000), (100_000_000, 20), (1_000_000_000, 3), (60_000_000_000, 1)],
    ids=["until 1 s", "20 runs", "bounded", "one run at the least"],
)
def test_the_warm_up_is_fixed(session: Session, model: Model, cost: int, runs: int) -> None:
    model.cost = cost
    warm = session.warm(runs=20, seconds=1.0, most_seconds=3.0)
    assert warm["runs"] == pytest.approx(runs, abs=1)
    assert len(warm["ns"]) == warm["runs"]


def test_a_long_warm_up_is_thinned_in_the_record(session: Session, model: Model) -> None:
    model.cost = 10_000
    warm = session.warm(runs=20, seconds=1.0, most_seconds=3.0)
    assert warm["runs"] > 90_000
    assert len(warm["ns"]) <= 2 * worker.WARM_RECORD


def test_right_outputs_are_right(session: Session) -> None:
    session.block(calls=2, settle=1, each=True)
    assert session.check() == {"ok": True, "reason": "", "errors": {"y": 0.0}}


def test_a_call_that_computes_nothing_cannot_pass_off_its_last_answer(session: Session, model: Model) -> None:
    assert session.check()["ok"]
    model.sabotage = lambda call: True
    session.block(calls=3, settle=2, each=True)
    checked = session.check()
    assert not checked["ok"]
    assert checked["errors"] == {"y": None}


def test_the_most_recent_timed_call_is_judged(session: Session, model: Model) -> None:
    def garbage(call: int) -> bool:
        model.buffer[:] = 7.0
        return call == 6

    model.sabotage = garbage
    session.block(calls=5, settle=0, each=True)  # calls 2 to 6
    assert not session.check()["ok"]
    session.block(calls=1, settle=0, each=True)
    assert session.check()["ok"]


def test_inputs_that_the_call_writes_into_are_named(clock: FakeClock) -> None:
    feeds = {"x": np.ones(3, dtype=np.float32)}

    def call() -> Mapping[str, np.ndarray]:
        feeds["x"] += 1
        return {"y": feeds["x"]}

    opened = Opened(call, lambda: call, dict, lambda last: spoil(last, feeds), dict, list)
    checked = made(opened, feeds, clock).check()
    assert "writes into its own inputs" in checked["reason"]


def test_inputs_and_what_cannot_be_written_are_not_spoilt() -> None:
    feed, fixed = np.ones(4), np.ones(2)
    fixed.flags.writeable = False
    arrays = {"alias": feed[1:3], "fixed": fixed, "float": np.ones(2, np.float16), "int": np.ones(2, np.int64)}
    spoil(arrays, {"x": feed})
    assert np.all(feed == 1)
    assert np.all(fixed == 1)
    assert np.all(np.isnan(arrays["float"]))
    assert np.all(arrays["int"] == np.iinfo(np.int64).max)


@pytest.mark.parametrize(
    ("outputs", "allowed", "words"),
    [
        ({}, ALLOWED, "missing"),
        ({"z": REFERENCE["y"]}, ALLOWED, "missing"),
        ({"y": REFERENCE["y"]}, {}, "no limit"),
        ({"y": REFERENCE["y"][None]}, ALLOWED, "shape"),
        ({"y": REFERENCE["y"][:2]}, ALLOWED, "shape"),
        ({"y": REFERENCE["y"] * 1.001}, ALLOWED, "off by 0.001"),
        ({"y": np.array([1.0, np.nan, 3.0])}, ALLOWED, "NaN"),
        ({"y": np.array([1.0, np.inf, 3.0])}, ALLOWED, "NaN"),
        ({"y": REFERENCE["y"]}, {"y": float("nan")}, "off by"),
    ],
)
def test_wrong_answers(outputs: dict[str, np.ndarray], allowed: dict[str, float], words: str) -> None:
    checked = judged(outputs, REFERENCE, allowed)
    assert not checked["ok"]
    assert words in checked["reason"]
    json.dumps(checked, allow_nan=False)


def test_without_a_reference_nothing_is_right() -> None:
    assert not judged({"y": REFERENCE["y"]}, {}, ALLOWED)["ok"]


def test_two_nans_are_not_equal() -> None:
    nan = {"y": np.array([np.nan])}
    assert not judged(nan, nan, {"y": 1.0})["ok"]


def test_the_error_is_free_of_scale() -> None:
    y = REFERENCE["y"]
    for scale in (1e-10, 1.0, 1e10):
        assert relative_l2(y * scale * 1.01, y * scale) == pytest.approx(0.01)
    assert relative_l2(np.zeros(3), np.zeros(3)) == 0.0
    assert relative_l2(np.full(3, 1e-30), np.zeros(3)) == np.inf
    # Differences are taken in float64: in float16 this reference would overflow.
    assert relative_l2(np.ones(3, np.float16), np.full(3, 1e6)) == pytest.approx(1.0, rel=1e-3)


@pytest.fixture
def tensors(tmp_path: Path) -> str:
    path = tmp_path / "case.safetensors"
    save_file({"input/x": np.ones(2, np.float32), "reference/y": REFERENCE["y"]}, str(path))
    return str(path)


def test_the_conversation(tensors: str, model: Model, clock: FakeClock) -> None:
    warm = {"do": "warm", "runs": 2, "seconds": 0, "most_seconds": 1}
    block = {"do": "block", "calls": 2, "settle": 1, "each": True}
    talk = Conversation(warm, block, {"do": "check"}, {"do": "facts"}, {"do": "quit"}, {"do": "never asked"})
    request = {"tensors": tensors, "allowed": ALLOWED}
    worker.serve(lambda request, feeds: model.opened(feeds), request, talk, clock)
    opened, warmed, timed, checked, facts = talk.sent
    assert set(opened) == {"check", "check_ns", "tick_ns", "load_ns", "first_run_ns", "peak_rss_bytes"}
    assert opened["check"]["ok"]
    assert opened["peak_rss_bytes"] > 1e6
    assert opened["first_run_ns"] == 1001
    assert len(warmed["ns"]) == 2
    assert len(timed["ns"]) == 2
    assert checked["ok"]
    assert facts == {"precision": "fp32"}
    assert talk.commands == [{"do": "never asked"}]


def test_a_subject_is_closed_whatever_happens(tensors: str, model: Model, clock: FakeClock) -> None:
    closed: list[bool] = []
    opened = Opened(model, lambda: model, dict, lambda last: None, dict, lambda: closed.append(True))
    request = {"tensors": tensors, "allowed": ALLOWED}
    with pytest.raises(AssertionError):
        worker.serve(lambda request, feeds: opened, request, Conversation({"do": "nonsense"}), clock)
    assert closed == [True]


# ---- eager


def eager_request(tensors: str, **more: Any) -> dict[str, Any]:
    build = {"model": "m", "options": {}, "checkpoint": None, "seed": 0}
    request = {"build": build, "inputs": ["x"], "outputs": ["y"], "threads": 1, "tensors": tensors, "allowed": ALLOWED}
    return request | more


@pytest.fixture
def eager_model(monkeypatch: pytest.MonkeyPatch) -> Any:
    torch = pytest.importorskip("torch")
    define = pytest.importorskip("exporter.define")

    class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))

        def forward(self, x: Any) -> Any:
            assert torch.is_inference_mode_enabled()
            return (self.scale * x[0],)

    monkeypatch.setattr(define, "eager", lambda build: Net())
    return torch


def test_eager_speaks_the_same_protocol(tensors: str, eager_model: Any) -> None:
    talk = Conversation({"do": "block", "calls": 2, "settle": 0, "each": True}, {"do": "check"}, {"do": "facts"})
    worker.eager(eager_request(tensors), talk)
    opened, timed, checked, facts = talk.sent
    assert opened["check"]["ok"]
    assert checked["ok"]
    assert len(timed["ns"]) == 2
    assert facts["precision"] == "fp32"
    assert eager_model.get_num_threads() == 1


def test_eager_in_another_precision(tensors: str, eager_model: Any) -> None:
    talk = Conversation({"do": "facts"})
    worker.eager(eager_request(tensors, precision="bf16"), talk)
    assert talk.sent[0]["check"]["ok"]
    assert talk.sent[1]["precision"] == "bf16"
    with pytest.raises(Refused, match="eager-precision"):
        worker.eager(eager_request(tensors, precision="int8"), Conversation())


def test_eager_outputs_that_are_not_those_of_the_definition_are_wrong(tensors: str, eager_model: Any) -> None:
    talk = Conversation()
    worker.eager(eager_request(tensors, outputs=["y", "z"]), talk)
    assert not talk.sent[0]["check"]["ok"]


def test_without_torch_eager_is_absent_not_broken(tensors: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Incomplete, match="torch absent"):
        worker.eager(eager_request(tensors), Conversation())


def test_nested_outputs_are_flat() -> None:
    assert eager._flat((1, [2, (3,)], 4)) == [1, 2, 3, 4]
