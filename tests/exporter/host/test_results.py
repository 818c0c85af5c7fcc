"""Disparity maps and scores, and the names that steps give."""

from __future__ import annotations

import numpy as np
import pytest

from exporter import host
from exporter.errors import Refused
from exporter.host import results
from exporter.spec import HostStep


def test_a_negative_flow_becomes_a_positive_disparity() -> None:
    flow = -np.arange(6.0).reshape(1, 1, 2, 3)
    found = results.disparity({"up": flow}, source="up", sign=-1)["disparity"]
    assert found.dtype == np.float32 and found.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert results.disparity({"up": flow}, source="up", result="flow")["flow"][1, 2] == -5


def test_two_maps_and_another_factor_are_refused() -> None:
    with pytest.raises(Refused, match=r"\(1, 2, 4, 4\)"):
        results.disparity({"up": np.zeros((1, 2, 4, 4))}, source="up")
    with pytest.raises(Refused, match="sign 2"):
        results.disparity({"up": np.zeros((1, 1, 4, 4))}, source="up", sign=2)


@pytest.mark.parametrize("shape", [(3, 1), (3,), (3, 1, 1)])
def test_a_score_per_image(shape: tuple[int, ...]) -> None:
    found = results.score({"quality": np.array([1.0, 2.0, 3.0]).reshape(shape)}, source="quality")["score"]
    assert found.dtype == np.float32 and found.tolist() == [1, 2, 3]
    with pytest.raises(Refused, match=r"shape \(3, 2\)"):
        results.score({"quality": np.zeros((3, 2))}, source="quality")


def test_the_names_after_the_steps_are_known_before() -> None:
    stft = {"sample_rate": 16000, "length": 512, "hop": 256, "window": "hann"}
    for steps, wanted in [
        ((HostStep("istft", {**stft, "from": "y"}),), ["y", "audio", "sample_rate"]),
        ((HostStep("unframe", {"from": "y", "sample_rate": 16000}),), ["y", "audio", "sample_rate"]),
        ((HostStep("crop", {"of": ["y"], "like": "x"}), HostStep("clamp", {"of": "y", "to": "image"})), ["y", "image"]),
        ((HostStep("disparity", {"from": "y", "sign": -1}),), ["y", "disparity"]),
        ((HostStep("disparity", {"from": "y", "to": "depth"}),), ["y", "depth"]),
        ((HostStep("score", {"from": "y"}),), ["y", "score"]),
        ((), ["y"]),
    ]:
        assert host.names_after(steps, ["y"]) == wanted


def test_what_names_are_said_to_come_does_come() -> None:
    steps = (HostStep("score", {"from": "y"}), HostStep("disparity", {"from": "map"}))
    values = host.apply(steps, {"y": np.ones((2, 1)), "map": np.ones((1, 1, 2, 2))})
    assert sorted(values) == sorted(host.names_after(steps, ["y", "map"]))


def test_a_name_with_a_record_is_no_data() -> None:
    assert host.is_record("left.size") and host.is_record("left.tiles") and host.is_record("x.samples")
    assert not host.is_record("size") and not host.is_record("left")
