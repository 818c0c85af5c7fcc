"""A subject without a pause: does it hold its speed, and what does a run cost. Time is made up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from exporter.latency import sampling, sustained
from exporter.latency.result import ARTIFACT, Subject
from exporter.latency.sampling import Moment, Sampler
from exporter.latency.stats import Conclusion
from exporter.latency.sustained import Sustained
from exporter.verdict import Verdict

RIGHT = {"ok": True, "reason": "", "errors": {}}


class Child:
    """Answers as a child whose calls take what the given function says of each block."""

    def __init__(self, call_ns: Callable[[int], float], right: Callable[[int], bool]) -> None:
        self.call_ns, self.right, self.blocks = call_ns, right, 0
        opened = {"load_ns": 1, "first_run_ns": 1e6, "peak_rss_bytes": 1, "check": RIGHT, "check_ns": 1, "tick_ns": 50}
        self.answers: list[Any] = [opened]

    def send(self, command: dict[str, Any]) -> None:
        if command["do"] == "warm":
            self.answers.append({"ns": [1e6] * 20, "runs": 20})
        elif command["do"] == "block":
            assert command["settle"] == 0, "a pause between windows would let the machine cool"
            self.answers.append({"ns": [self.call_ns(self.blocks)] * command["calls"]})
            self.blocks += 1
        elif command["do"] == "check":
            wrong = {"ok": False, "reason": "off", "errors": {}}
            self.answers.append(RIGHT if self.right(self.blocks - 1) else wrong)
        else:
            self.answers.append({"precision": "fp32", "layers": {}, "providers": {}})

    def receive(self, timeout: float | None = None) -> Any:
        return self.answers.pop(0)

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Meter:
    """A source of joules."""

    name: str = "meter"

    def read(self) -> float:
        return 0.0

    def spent(self, readings: Any) -> float:
        return float(readings[-1][1] - readings[0][1])


def moment(at: float) -> Moment:
    return Moment(at, None, None, {"meter": 10.0 * at})


def ran(
    call_ns: Callable[[int], float], right: Callable[[int], bool] = lambda _: True, seconds: float = 30.0, **more: Any
) -> Sustained:
    ticks: Iterator[float] = (index * 0.125 for index in count())
    return sustained.sustained(
        Subject("it", ARTIFACT, {}, "fp32", "fp32"), seconds=seconds, threads=1, seed=0, log_folder=Path("logs"),
        progress=lambda _: None, starter=lambda *_: Child(call_ns, right), clock=lambda: next(ticks),
        **{"sources": []} | more,
    )  # fmt: skip


def test_one_that_holds_its_speed() -> None:
    found = ran(lambda block: 1e6 + 1e3 * (block % 7))
    assert found.conclusion is Conclusion.UNDECIDED and found.slows_at is None
    assert found.ratio is not None and found.ratio.value == pytest.approx(1.0, abs=0.01)
    assert len(found.windows) > 50 and found.measured.verdict is Verdict.PASS


def test_one_that_throttles_and_when() -> None:
    found = ran(lambda block: 1e6 if block < 40 else 1.5e6)
    assert found.conclusion is Conclusion.SLOWER
    assert found.ratio is not None and found.ratio.value == pytest.approx(1.5)
    assert found.slows_at == found.windows[40].at
    value = found.as_json()
    assert value["conclusion"] == "slower" and value["slows_at_s"] == found.windows[40].at


def test_a_dip_that_passes_is_no_throttling() -> None:
    found = ran(lambda block: 2e6 if 30 <= block < 40 else 1e6)
    assert found.conclusion is Conclusion.UNDECIDED


def test_an_answer_that_goes_wrong_on_the_way_ends_it() -> None:
    found = ran(lambda _: 1e6, right=lambda block: block < 5)
    assert found.measured.verdict is Verdict.INVALID and len(found.windows) == 5
    assert found.ratio is None and found.as_json()["ratio"] is None


def test_too_short_a_run_says_nothing() -> None:
    found = ran(lambda block: 1e6 * (1 + block), seconds=2.0)
    assert found.ratio is None and found.conclusion is Conclusion.UNDECIDED


def test_energy_is_of_one_run_and_what_an_idle_machine_takes_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = count()
    monkeypatch.setattr(sampling, "look", lambda *_, **__: moment(float(next(seconds))))
    monkeypatch.setattr(sustained, "IDLE_SECONDS", 0.01)
    found = ran(lambda _: 1e6, sources=[Meter()])
    (energy,) = found.energy
    assert energy.watts == pytest.approx(10.0) and energy.idle_watts == pytest.approx(10.0)
    assert energy.above_idle == pytest.approx(0.0, abs=1e-6)
    calls = sum(window.calls for window in found.windows)
    assert energy.joules * calls == pytest.approx(10.0 * (found.moments[-1].at - found.moments[0].at))


def test_no_source_is_said() -> None:
    found = ran(lambda _: 1e6)
    assert found.energy == [] and found.as_json()["no_energy"]


def test_a_sampler_looks_at_once_and_at_the_end(tmp_path: Path) -> None:
    cpu = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    cpu.mkdir(parents=True)
    (cpu / "scaling_cur_freq").write_text("1500000\n")
    with Sampler([], every=60.0, root=tmp_path) as sampler:
        (cpu / "scaling_cur_freq").write_text("1200000\n")
    assert [moment.mhz for moment in sampler.moments] == [1500.0, 1200.0]
    assert sampling.look([], lambda: 3.0, tmp_path) == Moment(3.0, 1200.0, None, {})
