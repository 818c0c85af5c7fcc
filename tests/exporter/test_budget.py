"""What a lower precision may cost: bounds that hold, bounds that do not, and bounds that nothing measured."""

from __future__ import annotations

from typing import Any

import pytest

from exporter.budget import Budget, Spent, judged, parsed, spent
from exporter.errors import Refused
from exporter.verdict import Result, Verdict


def result(
    error: float | None, amplification: float | None = None, case: str = "normal", verdict: Verdict = Verdict.PASS
) -> Result:
    return Result("compiled", "it", None, case, "y", verdict, relative_l2=error, amplification=amplification)


def metric(name: str, better: str, *rows: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "unit": "", "better": better, "cases": {str(i): row for i, row in enumerate(rows)}}


def row(difference: float | None, against: str = "truth") -> dict[str, Any]:
    return {"against": against, "eager": 1.0, "artifact": 1.0, "difference": difference}


@pytest.mark.parametrize(
    ("texts", "budget"),
    [
        (["snr:30"], Budget(decibels=30.0)),
        (["snr:30dB"], Budget(decibels=30.0)),
        (["amplification:2"], Budget(amplification=2.0)),
        (["si-sdr:0.1"], Budget(losses={"si-sdr": 0.1})),
        (["snr:30, si-sdr:0.1", "pesq:0.05"], Budget(decibels=30.0, losses={"si-sdr": 0.1, "pesq": 0.05})),
        ([], Budget()),
    ],
)
def test_a_budget_is_read_and_said_in_the_same_words(texts: list[str], budget: Budget) -> None:
    found = parsed(texts, ("si-sdr", "pesq"), "it")
    assert found == budget and bool(found) == bool(texts)
    assert parsed([str(found)] if texts else [], ("si-sdr", "pesq"), "it") == budget


@pytest.mark.parametrize(
    "text",
    [
        "",
        "snr",
        "snr:",
        "snr:loud",
        "snr:-3",
        "snr:14.9",
        "snr:nan",
        "snr:inf",
        "sisdr:0.1",
        "psnr:0.1",
        ":3",
        "snr:30,snr:20",
        "30",
    ],
)
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(Refused) as caught:
        parsed([text], ("si-sdr",), "it")
    assert caught.value.code == "bad-budget" and caught.value.next


def test_a_misspelt_metric_names_the_nearest() -> None:
    with pytest.raises(Refused, match="nearest: si-sdr"):
        parsed(["sisdr:0.1"], ("si-sdr", "pesq"), "it")


def test_what_is_given_goes_over_what_the_definition_says() -> None:
    own = Budget(decibels=20.0, losses={"si-sdr": 0.1, "pesq": 1.0})
    mine = Budget(amplification=3.0, decibels=15.0, losses={"si-sdr": 0.5})
    assert mine.over(own) == Budget(3.0, 15.0, {"si-sdr": 0.5, "pesq": 1.0})
    assert Budget().over(own) == own


def test_what_is_spent_is_the_worst_of_all() -> None:
    metrics = [
        metric("psnr", "higher", row(-0.5), row(0.2), row(-80.0, "reference")),
        metric("epe", "lower", row(0.25), row(-1.0)),
        metric("ssim", "higher", row(-1.0, "reference")),
        metric("stoi", "higher", row(None), row(-0.01)),
        metric("psnr", "higher", row(-0.7)),
    ]
    results = [result(0.1, 3.0), result(0.001, 7.0), result(0.5, 9.0, "near-zero"), result(None)]
    found = spent(results, {"normal"}, metrics)
    assert found.decibels == pytest.approx(20.0), "of what is as it is meant to be"
    assert found.amplification == 9.0, "of all"
    assert found.losses == {"psnr": 0.7, "epe": 0.25}, "of all forms; against a reference nothing is lost"
    assert "stoi" not in found.losses, "where one row is undefined all of it is unknown"
    assert spent([], (), []) == Spent(None, None, {})
    assert spent([result(0.0)], {"normal"}, []).as_json()["decibels"] == 300.0
    broken = [result(0.001), result(None, verdict=Verdict.FAIL)]
    assert spent(broken, {"normal"}, []).decibels is None, "some of it is no number"


@pytest.mark.parametrize(
    ("budget", "cost", "verdict", "said"),
    [
        (Budget(), Spent(None, None, {}), Verdict.PASS, ""),
        (Budget(decibels=30), Spent(30.0, 1.0, {}), Verdict.PASS, ""),
        (Budget(decibels=30), Spent(29.9, 1.0, {}), Verdict.FAIL, "29.9 dB below the output; 30 dB asked for"),
        (Budget(amplification=2), Spent(60.0, 2.5, {}), Verdict.FAIL, "2.5 times eager's own; 2 allowed"),
        (Budget(losses={"psnr": 0.1}), Spent(60.0, 1.0, {"psnr": 0.2}), Verdict.FAIL, "psnr loses 0.2"),
        (Budget(losses={"psnr": 0.1}), Spent(60.0, 1.0, {"psnr": -5.0}), Verdict.PASS, ""),
        (Budget(losses={"psnr": 0.1}), Spent(60.0, 1.0, {}), Verdict.INVALID, "psnr was not measured"),
        (Budget(decibels=30), Spent(None, None, {}), Verdict.INVALID, "snr was not measured"),
        (Budget(amplification=30), Spent(3.0, None, {}), Verdict.INVALID, "amplification was not measured"),
        (Budget(decibels=30, losses={"psnr": 1}), Spent(20.0, 1.0, {}), Verdict.FAIL, "20.0 dB"),
    ],
)
def test_every_bound_must_hold_and_unknown_is_none(budget: Budget, cost: Spent, verdict: Verdict, said: str) -> None:
    found, reason = judged(budget, cost)
    assert found is verdict and said in reason
