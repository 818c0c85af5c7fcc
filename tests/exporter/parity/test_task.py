"""Task metrics beside a verdict: eager and the artifact against the truth, or against the reference without one."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.parity.task import TaskMetrics
from exporter.spec import HostStep

CROP = (
    HostStep("crop", {"of": ["restored"], "like": "image"}),
    HostStep("clamp", {"of": "restored", "low": 0.0, "high": 1.0, "to": "image"}),
)


def picture(noise: float, seed: int = 0, size: int = 16) -> np.ndarray:
    rng = np.random.default_rng(seed)
    clean = np.linspace(0.2, 0.8, size * size, dtype=np.float32).reshape(1, 1, size, size).repeat(3, 1)
    return (clean + noise * rng.standard_normal(clean.shape)).astype(np.float32)


def tensors(truth: bool = True) -> dict[str, np.ndarray]:
    """A case whose truth, or whose reference, is the clean picture."""
    found = {"eager/restored": picture(0.1), "reference/restored": picture(0.0)}
    return found | ({"truth/image": picture(0.0)} if truth else {})


@pytest.mark.parametrize("truth", [True, False])
def test_eager_and_artifact_stand_beside_one_another(truth: bool) -> None:
    task = TaskMetrics(["psnr", "ssim"], CROP)
    task.add("sample-a", {"restored": picture(0.2)}, tensors(truth))
    psnr, ssim = task.as_json()
    assert (psnr["name"], ssim["name"]) == ("psnr", "ssim") and psnr["better"] == "higher" and psnr["unit"] == "dB"
    row = psnr["cases"]["sample-a"]
    assert row["against"] == ("truth" if truth else "reference")
    assert row["eager"] == pytest.approx(20, abs=0.6), "noise of 0.1 is 20 dB"
    assert row["artifact"] == pytest.approx(14, abs=0.6)
    assert row["difference"] == pytest.approx(row["artifact"] - row["eager"])


def test_the_steps_after_the_graph_get_what_those_before_it_left() -> None:
    task = TaskMetrics(["psnr"], CROP)
    padded = np.pad(picture(0.0), [(0, 0), (0, 0), (0, 8), (0, 8)])
    context = {"context/image.size": np.array([0, 0, 16, 16]), "truth/image": picture(0.0)}
    task.add("sample-a", {"restored": padded}, {**context, "eager/restored": padded})
    (psnr,) = task.as_json()
    assert psnr["cases"]["sample-a"]["artifact"] > 100


def test_what_people_look_at_is_the_artifacts_answer_after_the_steps() -> None:
    task = TaskMetrics([], CROP)
    task.add("sample-a", {"restored": np.full((1, 3, 16, 16), 2.0, np.float32)}, tensors())
    task.add("no-real-input", {"restored": picture(0.0)}, {"reference/restored": picture(0.0)})
    (name,) = task.previews()
    assert name == "sample-a/image" and task.previews()[name].shape == (16, 16, 3)
    assert set(task.previews()[name].ravel().tolist()) == {255}, "clamped, as the metrics see it"


def test_a_correlation_is_over_all_cases() -> None:
    task = TaskMetrics(["srcc"], [HostStep("score", {"from": "quality_score"})])
    for index, (eager, mine) in enumerate([(0.1, 0.4), (0.5, 0.5), (0.9, 0.3)]):
        given = {"truth/score": np.array([index / 2]), "eager/quality_score": np.array([[eager]], np.float32)}
        task.add(f"sample-{index}", {"quality_score": np.array([[mine]], np.float32)}, given)
    (srcc,) = task.as_json()
    assert srcc["cases"] == {
        "3 cases": {
            "against": "truth",
            "eager": 1.0,
            "artifact": pytest.approx(-0.5),
            "difference": pytest.approx(-1.5),
        }
    }


def test_one_case_has_no_correlation_and_generated_cases_have_no_metric() -> None:
    task = TaskMetrics(["srcc"], [HostStep("score", {"from": "quality_score"})])
    score = np.array([[0.5]], np.float32)
    task.add("sample-0", {"quality_score": score}, {"truth/score": score[0], "eager/quality_score": score})
    task.add("normal", {"quality_score": score}, {"reference/quality_score": score})
    assert task.as_json() == []


def test_what_is_undefined_is_null_and_what_is_unknown_is_left_out() -> None:
    task = TaskMetrics(["srcc", "of-a-later-version"], [HostStep("score", {"from": "quality_score"})])
    same = np.array([[0.5]], np.float32)
    for index in range(3):
        task.add(f"s{index}", {"quality_score": same}, {"truth/score": np.array([index]), "eager/quality_score": same})
    (srcc,) = task.as_json()
    assert srcc["cases"]["3 cases"] == {
        "against": "truth", "eager": None, "artifact": None, "difference": None,
    }  # fmt: skip


def test_a_truth_is_never_mixed_with_a_reference() -> None:
    """A metric against the truth and one against the reference are hundreds of dB apart, and different things."""
    task = TaskMetrics(["psnr"], CROP)
    task.add("sample-a", {"restored": picture(0.2)}, tensors(truth=True))
    task.add("sample-b", {"restored": picture(0.2)}, tensors(truth=False))
    (psnr,) = task.as_json()
    assert {name: row["against"] for name, row in psnr["cases"].items()} == {
        "sample-a": "truth",
        "sample-b": "reference",
    }
    scores = TaskMetrics(["srcc"], [HostStep("score", {"from": "quality_score"})])
    for index in range(5):
        given = {"eager/quality_score": np.array([[index]], np.float32)}
        right = {"truth/score": np.array([-index])} if index < 3 else {"reference/quality_score": np.array([[index]])}
        scores.add(f"s{index}", {"quality_score": np.array([[index]], np.float32)}, given | right)
    (srcc,) = scores.as_json()
    assert {name: row["artifact"] for name, row in srcc["cases"].items()} == {
        "3 cases": pytest.approx(-1),
        "2 cases without truth": pytest.approx(1),
    }


def test_a_truth_that_does_not_fit_leaves_a_note_and_no_error() -> None:
    task = TaskMetrics(["psnr"], CROP)
    task.add("sample-a", {"restored": picture(0.2)}, tensors() | {"truth/image": picture(0.0, size=8)})
    (psnr,) = task.as_json()
    row = psnr["cases"]["sample-a"]
    assert row["artifact"] is None and row["eager"] is None and "its truth is (1, 3, 8, 8)" in row["note"]
