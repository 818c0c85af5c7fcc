"""The conversation with children, on children that are made up, and once on real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.errors import Incomplete, StageFailed
from exporter.latency import children as module
from exporter.latency.profile import profile
from exporter.latency.result import ARTIFACT, EAGER, Profile, Subject
from exporter.latency.stats import Cause, Conclusion, Stability
from exporter.verdict import Verdict

RIGHT = {"ok": True, "reason": "", "errors": {"y": 1e-7}}
WRONG = {"ok": False, "reason": "output y is off by 1 (relative L2), allowed 1e-05", "errors": {"y": 1.0}}


@dataclass
class World:
    """All children of a run, who is awake, and what went wrong in the harness itself."""

    ms: dict[str, float] = field(default_factory=dict)
    sigma: float = 0.02
    on_block: Callable[[str, int], dict[str, Any] | None] = lambda name, number: None
    on_check: Callable[[str, int], dict[str, Any]] = lambda name, number: RIGHT
    on_open: Callable[[str], dict[str, Any] | None] = lambda name: {}
    awake: set[str] = field(default_factory=set)
    most_awake: int = 0
    started: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    log: list[tuple[str, str]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def start(self, subject: Subject, threads: int, log_folder: Path) -> FakeChild:
        self.started.append(subject.name)
        self.threads.add(threads)
        self.wake(subject.name)
        return FakeChild(self, subject.name)

    def wake(self, name: str) -> None:
        self.awake.add(name)
        self.most_awake = max(self.most_awake, len(self.awake))


class FakeChild:
    """A child whose calls take a drawn time; it works only while awake."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.blocks = world, name, 0
        self.rng = np.random.default_rng(len(world.started))
        opened = {
            "load_ns": 2e8,
            "first_run_ns": 9e6,
            "peak_rss_bytes": 2**27,
            "check": RIGHT,
            "check_ns": 1e5,
            "tick_ns": 50,
        }
        changed = world.on_open(name)
        self.answers: list[Any] = [None if changed is None else opened | changed]

    def calls(self, count: int) -> list[int]:
        plain = self.name.removesuffix(module.TWIN)
        return [
            int(self.world.ms[plain] * 1e6 * np.exp(self.world.sigma * abs(z))) for z in self.rng.standard_normal(count)
        ]

    def send(self, command: dict[str, Any]) -> None:
        assert self.name in self.world.awake, "a paused child was asked to work"
        self.world.log.append((self.name, command["do"]))
        do = command["do"]
        if do == "warm":
            self.answers.append({"ns": self.calls(20), "runs": 20})
        elif do == "block":
            said = self.world.on_block(self.name, self.blocks)
            self.blocks += 1
            spent = self.calls(command["calls"])
            self.answers.append({"ns": spent if command["each"] else [sum(spent)]} if said is None else said)
        elif do == "check":
            self.answers.append(self.world.on_check(self.name, self.blocks - 1))
        else:
            self.answers.append({"precision": "fp32", "layers": {"fp32": 3}, "providers": {"cpu": 3}})

    def receive(self, timeout: float | None = None) -> Any:
        assert timeout, "waiting for ever hangs an export"
        return self.answers.pop(0)

    def pause(self) -> None:
        self.world.awake.discard(self.name)

    def resume(self) -> None:
        self.world.wake(self.name)

    def close(self) -> None:
        self.world.awake.discard(self.name)
        self.world.closed.append(self.name)


def subject(name: str, **more: Any) -> Subject:
    return Subject(name, EAGER if name == "eager" else ARTIFACT, {}, "fp32", "fp32", baseline=name == "eager", **more)


def run(world: World, *names: str | Subject, budget: float = 6.0, seed: int = 1) -> Profile:
    subjects = [subject(name) if isinstance(name, str) else name for name in names]
    return profile(subjects, seed=seed, threads=2, log_folder=Path("logs"), budget_seconds=budget, starter=world.start)


def named(result: Profile, name: str) -> Any:
    return next(measured for measured in result.subjects if measured.subject.name == name)


@pytest.fixture
def world() -> World:
    return World({"eager": 20.0, "fast": 10.0, "same": 10.0, "slow": 11.0})


def test_a_good_run(world: World) -> None:
    result = run(world, "eager", "fast")
    assert result.stability is Stability.STABLE
    assert result.verdict is Verdict.PASS
    (ratio,) = result.ratios
    assert (ratio.of, ratio.to, ratio.conclusion) == ("fast", "eager", Conclusion.FASTER)
    assert ratio.estimate.value == pytest.approx(0.5, rel=0.02)
    assert all(len(measured.blocks) >= 9 for measured in result.subjects)
    assert sorted(world.closed) == sorted(world.started)


def test_a_slow_down_of_ten_percent_is_found_and_the_same_thing_is_not_called_different(world: World) -> None:
    result = run(world, "fast", "slow", "same")
    found = {(ratio.of, ratio.to): ratio.conclusion for ratio in result.ratios}
    assert found == {
        ("fast", "slow"): Conclusion.FASTER,
        ("fast", "same"): Conclusion.UNDECIDED,
        ("slow", "same"): Conclusion.SLOWER,
    }


def test_only_one_child_is_ever_awake(world: World) -> None:
    run(world, "eager", "fast", "slow")
    assert world.most_awake == 1
    assert world.awake == set()


def test_the_first_artifact_gets_a_twin_and_everyone_the_same_threads(world: World) -> None:
    result = run(world, "eager", "fast", "slow")
    assert world.started == ["eager", "fast", "slow", "fast" + module.TWIN]
    assert world.threads == {2}
    assert result.noise_floor is not None
    assert 1.01 <= result.noise_floor < 1.05
    assert [measured.subject.name for measured in result.subjects] == ["eager", "fast", "slow"]


def test_blocks_run_in_the_order_of_the_plan_and_each_is_checked(world: World) -> None:
    result = run(world, "eager", "fast")
    planned = [(number, name) for number, names in enumerate(result.plan.rounds) for name in names]
    assert list(result.order) == planned
    commands = [entry for entry in world.log if entry[1] in ("block", "check")]
    assert commands == [(name, do) for _, name in planned for do in ("block", "check")]
    assert run(World(world.ms), "eager", "fast").order == result.order
    assert run(World(world.ms), "eager", "fast", seed=2).order != result.order


def test_garbage_during_timing_voids_the_subject(world: World) -> None:
    world.on_check = lambda name, number: WRONG if (name, number) == ("fast", 4) else RIGHT
    result = run(world, "eager", "fast", "slow")
    fast = named(result, "fast")
    assert (fast.verdict, fast.stability) == (Verdict.INVALID, Stability.INVALID)
    assert [reason.cause for reason in fast.reasons] == [Cause.WRONG_OUTPUT]
    assert fast.as_json()["median_ms"] is None
    assert fast.as_json()["n"] == 0
    assert result.stability is Stability.INVALID
    assert named(result, "slow").stability is Stability.STABLE
    # The pair is gone with it, so nothing can be claimed of the rest either.
    assert [(r.of, r.conclusion) for r in result.ratios] == [("slow", Conclusion.UNDECIDED)]
    assert [warned.code for warned in result.warnings if warned.code == "no-noise-floor"]


@pytest.mark.parametrize("check", [{}, {"ok": None}, {"ok": "yes"}, {"ok": 1}, WRONG])
def test_only_a_plain_yes_is_right(world: World, check: dict[str, Any]) -> None:
    world.on_open = lambda name: {"check": check} if name == "fast" else {}
    result = run(world, "fast", "slow")
    assert named(result, "fast").verdict is Verdict.INVALID
    assert ("fast", "warm") not in world.log, "wrong outputs are not worth timing"
    assert "slow" + module.TWIN in world.started


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"ns": []},
        {"ns": [1.0]},
        {"ns": ["1"] * 4},
        {"ns": [float("nan")] * 4},
        {"ns": [-1, 9, 9, 9]},
        {"ns": [0] * 4},
    ],
)
def test_timings_that_no_clock_gives_are_refused(world: World, answer: dict[str, Any]) -> None:
    world.on_block = lambda name, number: answer if name == "fast" else None
    result = run(world, "fast", "slow")
    assert named(result, "fast").verdict is Verdict.INVALID
    assert named(result, "slow").verdict is Verdict.PASS


def crash(error: Exception) -> Callable[[str, int], None]:
    def on_block(name: str, number: int) -> None:
        if (name, number) == ("slow", 3):
            raise error

    return on_block


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (StageFailed("stage-crashed", "profile slow crashed: SIGSEGV"), Verdict.CRASHED),
        (StageFailed("stage-timed-out", "profile slow was stopped"), Verdict.TIMED_OUT),
        (StageFailed("stage-out-of-memory", "profile slow used 9 GiB"), Verdict.CRASHED),
        (Incomplete("torch-absent", "torch absent"), Verdict.SKIPPED),
    ],
)
def test_a_crashed_child_voids_its_subject_alone(world: World, error: Exception, verdict: Verdict) -> None:
    world.on_block = crash(error)
    result = run(world, "eager", "fast", "slow")
    slow = named(result, "slow")
    assert (slow.verdict, slow.timed) == (verdict, False)
    assert slow.reason in str(error)
    assert result.verdict is verdict
    assert result.stability is Stability.STABLE
    assert [(r.of, r.to) for r in result.ratios] == [("fast", "eager")]
    assert "slow" in world.closed
    assert world.awake == set()
    after = [name for number, name in result.order if number > 3]
    assert "slow" not in after


def test_a_child_that_returns_early_is_a_crash(world: World) -> None:
    world.on_open = lambda name: None if name == "fast" else {}
    assert named(run(world, "eager", "fast"), "fast").verdict is Verdict.CRASHED


def test_a_skipped_subject_is_listed_and_never_started(world: World) -> None:
    result = run(world, subject("eager", skipped="torch absent"), "fast")
    entry = result.as_json()["subjects"][0]
    assert (entry["name"], entry["verdict"], entry["reason"]) == ("eager", "SKIPPED", "torch absent")
    assert entry["median_ms"] is None
    assert entry["interval_ms"] is None
    assert "eager" not in world.started
    assert result.ratios == ()


def test_nothing_to_time_is_not_stable(world: World) -> None:
    result = run(world, subject("eager", skipped="torch absent"))
    assert (result.stability, result.verdict) == (Stability.INVALID, Verdict.SKIPPED)
    assert run(world).stability is Stability.INVALID
    assert run(world).verdict is Verdict.INVALID


def test_a_crashed_twin_leaves_figures_but_no_claims(world: World) -> None:
    world.on_open = lambda name: None if name.endswith(module.TWIN) else {}
    result = run(world, "eager", "fast")
    assert result.noise_floor is None
    assert named(result, "fast").timed
    assert [ratio.conclusion for ratio in result.ratios] == [Conclusion.UNDECIDED]
    assert result.as_json()["twins"]["verdict"] == "CRASHED"


def test_what_was_never_timed_is_no_success() -> None:
    assert module.Unit(subject("fast"), 1, 0).measured().verdict is Verdict.INVALID


def test_names_are_unique(world: World) -> None:
    with pytest.raises(ValueError, match="names of their own"):
        run(world, "fast", "fast")


def test_children_end_when_the_run_is_interrupted(world: World) -> None:
    def interrupt(name: str, number: int) -> None:
        raise KeyboardInterrupt

    world.on_block = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(world, "eager", "fast")
    assert sorted(world.closed) == sorted(world.started)


def test_noise_is_named(world: World) -> None:
    world.sigma = 0.3
    result = run(world, "eager", "fast")
    assert result.stability is Stability.NOISY
    assert Cause.SPREAD in {reason.cause for measured in result.subjects for reason in measured.reasons}


def test_percentiles_only_where_there_are_calls_enough() -> None:
    few, many = World({"fast": 100.0}), World({"fast": 5.0})
    entry = run(few, "fast").as_json()["subjects"][0]
    assert entry["n"] < 59
    assert entry["p95_ms"] is None
    assert entry["p95_upper_ms"] is None
    measured = run(many, "fast").subjects[0]
    assert len(measured.calls_ns) >= 59
    assert measured.as_json()["p95_ms"] <= measured.as_json()["p95_upper_ms"]
    assert measured.percentile(0.99) is None or len(measured.calls_ns) >= 299


def test_calls_timed_together_have_no_percentiles() -> None:
    measured = run(World({"tiny": 0.004}), "tiny").subjects[0]
    assert measured.calls_ns == []
    assert measured.percentile(0.5) is None
    assert measured.median is not None
    assert measured.median.value == pytest.approx(4000, rel=0.03)
    assert measured.as_json()["n"] > 10_000


def test_a_slow_model_is_said_to_need_more(world: World) -> None:
    world.ms["fast"] = 4000.0
    result = run(world, "fast")
    assert len(result.subjects[0].blocks) == 5
    assert "budget" in [warned.code for warned in result.warnings]
    assert Cause.FEW_BLOCKS in {reason.cause for reason in result.subjects[0].reasons}


def test_how_timings_are_spread_is_what_all_of_them_say(world: World) -> None:
    result = run(world, "fast", "slow")
    for subject in result.as_json(raw=True, spread=True)["subjects"]:
        calls = sorted(ns / 1e6 for block in subject["raw"]["blocks"] for ns in block["ns"])
        found = subject["distribution"]["quantiles_ms"]
        assert len(found) == 101 and found == sorted(found)
        assert (found[0], found[-1]) == pytest.approx((calls[0], calls[-1]), rel=1e-5)
        assert found[50] == pytest.approx(float(np.median(calls)), rel=1e-5)
        assert len(subject["distribution"]["blocks_ms"]) == len(subject["raw"]["blocks"])
    assert all("distribution" not in subject for subject in result.as_json()["subjects"])


def test_the_json_is_what_was_promised(world: World) -> None:
    result = run(world, "eager", "fast")
    value = json.loads(json.dumps(result.as_json(), allow_nan=False))
    promised = {"schema", "stability", "noise_floor", "seed", "blocks", "subjects", "ratios", "environment", "warnings"}
    assert promised <= set(value)
    assert value["schema"] == "exporter.profile/1"
    entry = value["subjects"][1]
    figures = {"median_ms", "interval_ms", "p95_ms", "n", "load_ms", "first_run_ms", "peak_rss_mb", "threads"}
    assert figures <= set(entry)
    assert entry["precision"] == {"asked": "fp32", "stored": "fp32", "ran": "fp32"}
    assert (entry["load_ms"], entry["first_run_ms"], entry["peak_rss_mb"]) == (200.0, 9.0, 128.0)
    assert set(value["ratios"][0]) == {"of", "to", "median", "interval", "conclusion"}
    assert "raw" not in entry
    raw = json.loads(json.dumps(result.as_json(raw=True), allow_nan=False))
    assert len(raw["subjects"][1]["raw"]["blocks"]) == value["blocks"]
    assert raw["twin"]["raw"]["warm_ns"]
    assert raw["order"]


def test_progress_is_told(world: World) -> None:
    told: list[str] = []
    profile([subject("fast")], seed=0, threads=1, log_folder=Path("logs"), progress=told.append, starter=world.start)
    assert told[0] == "open fast"
    assert any(line.startswith("block ") for line in told)


# ---- real children


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Subject]:
    """Subjects of the reference target on a graph of one multiplication."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("polygraphy")
    from safetensors.numpy import save_file

    for name, value in (("WARM_SECONDS", 0.05), ("WARM_MOST_SECONDS", 0.2)):
        monkeypatch.setattr(module, name, value)
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    x, y = (helper.make_tensor_value_info(name, kind, [4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Mul", ["x", "x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "m.onnx")

    def make(name: str, factor: float = 1.0) -> Subject:
        values = np.arange(4, dtype=np.float32)
        tensors = tmp_path / f"{name}.safetensors"
        save_file({"input/x": values, "reference/y": factor * values.astype(np.float64) ** 2}, tensors)
        files = {"onnx": str(tmp_path / "m.onnx")}
        artifact = {"precision": "fp32", "files": files, "forms": ["onnx"], "fingerprint": {}, "stored": "fp32"}
        artifact |= {"advice": []}
        request = {
            "target": "onnx-reference",
            "artifact": artifact,
            "options": {},
            "form": None,
            "tensors": str(tensors),
        }
        request["program"] = {
            "steps": [{"graph": "model", "repeat": 1, "state": []}],
            "shapes": {"model": {}},
            "gives": {},
            "outputs": [],
        }
        return Subject(name, ARTIFACT, request | {"allowed": {"y": 1e-6}}, "fp32", "fp32")

    return make


def test_real_children_are_timed_and_end(real: Callable[..., Subject], tmp_path: Path) -> None:
    isolate = pytest.importorskip("exporter.isolate")
    subjects = [real("right"), real("wrong", factor=1.01), subject("eager", skipped="torch absent")]
    result = profile(subjects, seed=0, threads=1, log_folder=tmp_path / "logs", budget_seconds=0.5)
    right, wrong, _ = result.as_json()["subjects"]
    assert right["verdict"] == "PASS", right["reason"]
    assert min(right["median_ms"], right["load_ms"]) > 0
    assert right["precision"]["ran"] == "fp32"
    assert wrong["verdict"] == "INVALID"
    assert "off by" in wrong["reason"]
    assert result.noise_floor is not None
    assert isolate.live() == ()
