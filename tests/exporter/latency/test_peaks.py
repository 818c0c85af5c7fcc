"""What a machine reaches at best, measured in a child."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.latency import peaks


def test_peaks_are_speeds_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = peaks.peaks(1, tmp_path)
    assert found.threads == 1 and set(found.gbs) == set(peaks.TOUCHED)
    # Anything that runs this has more than a hundredth of these, and nothing a hundred times as much.
    assert 0.1 < found.gflops["fp32"] < 1e5 and all(0.05 < speed < 1e4 for speed in found.gbs.values())


def test_the_best_try_is_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([0.0, 0, 5, 10, 12, 20, 27])
    monkeypatch.setattr(peaks.time, "perf_counter", lambda: next(readings, 100.0))
    assert peaks._best(lambda: None, 1.0) == 2.0
