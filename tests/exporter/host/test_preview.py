"""What a person looks at, made small; and got back from what a graph was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporter import host
from exporter.host.preview import MOST_CASES, SECONDS, SIDE, bounded, previews, smaller, undone
from exporter.spec import HostStep

STFT = {"sample_rate": 16000, "length": 512, "hop": 256, "window": "sqrt-hann"}


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


def test_a_recording_is_cut_and_written_as_a_file_would_be() -> None:
    audio = np.concatenate([[0.0, 0.5, 2.0, -2.0], np.zeros(16000 * 9)]).astype(np.float32)
    found = previews({"audio": audio, "sample_rate": np.array(16000)})
    assert found["audio"].dtype == np.int16 and found["audio"].size == SECONDS * 16000
    assert found["audio"][:4].tolist() == [0, 16384, 32767, -32768] and int(found["sample_rate"]) == 16000


def test_a_picture_becomes_bytes_and_no_larger_than_is_looked_at() -> None:
    image = noise(1, 3, 600, 300).astype(np.float32)
    found = previews({"image": image})["image"]
    assert found.dtype == np.uint8 and found.shape == (200, 100, 3) and max(found.shape) <= SIDE
    assert abs(int(found[0, 0, 0]) - 255 * image[0, 0, :3, :3].mean()) <= 0.5
    assert previews({"image": np.full((1, 1, 4, 4), 7.0)})["image"].tolist() == [[[255]] * 4] * 4
    tiny = previews({"image": np.full((1, 3, 2, 2), np.nan)})["image"]
    assert tiny.shape == (2, 2, 3) and not tiny.any()


def test_a_map_keeps_what_is_unknown_and_scores_are_numbers() -> None:
    disparity = np.array([[1.0, np.nan], [2.0, 3.0]])
    found = previews({"disparity": disparity, "score": np.array([0.25])})
    np.testing.assert_array_equal(found["disparity"], disparity.astype(np.float32))
    assert found["score"].tolist() == [0.25]


@pytest.mark.parametrize(
    "values",
    [
        {"audio": np.zeros((2, 5)), "sample_rate": np.array(16000)},
        {"audio": np.zeros(0), "sample_rate": np.array(16000)},
        {"audio": np.full(5, np.nan), "sample_rate": np.array(16000)},
        {"audio": np.zeros(5), "sample_rate": np.array(0)},
        {"audio": np.zeros(5)},
        {"image": np.zeros((2, 3, 4, 4))},
        {"image": np.zeros((1, 7, 4, 4))},
        {"image": np.zeros((1, 3, 0, 4))},
        {"disparity": np.zeros((1, 4, 4))},
        {"score": np.zeros(0)},
        {"logits": np.zeros(10)},
    ],
)
def test_what_cannot_be_shown_is_left_out(values: dict[str, Any]) -> None:
    assert previews(values) == {}


def test_means_of_squares_and_nothing_where_it_is_small_already() -> None:
    planes = noise(3, 2 * SIDE, SIDE)
    np.testing.assert_allclose(smaller(planes)[0, 0, 0], planes[0, :2, :2].mean())
    small = noise(3, SIDE, 9)
    assert smaller(small) is small
    assert smaller(noise(1, 1, 5 * SIDE)).shape == (1, 1, 5 * SIDE), "a line is no picture to make smaller"


def test_a_spectrum_gives_the_recording_back() -> None:
    steps = (HostStep("stft", {**STFT, "to": "spec"}),)
    audio = (0.3 * np.sin(np.arange(8192) / 7)).astype(np.float32)
    spec = host.apply(steps, {"audio": audio, "sample_rate": np.array(16000)})["spec"]
    found = undone(steps, {"spec": spec, "state": np.zeros(3)}, {})
    assert set(found) == {"spec"} and found["spec"]["audio"].size == 8192
    assert np.abs(found["spec"]["audio"] - np.floor(audio * 32768)).max() <= 1


def test_hops_give_the_recording_back_without_what_filled_the_last() -> None:
    steps = (HostStep("frames", {"sample_rate": 16000, "length": 256, "to": "x"}),)
    audio = (0.3 * np.sin(np.arange(1000) / 7)).astype(np.float32)
    made = host.apply(steps, {"audio": audio, "sample_rate": np.array(16000)})
    found = undone(steps, {"x": made["x"]}, host.records(made))["x"]
    np.testing.assert_array_equal(found["audio"], np.floor(audio.astype(np.float64) * 32768))


def test_a_picture_comes_back_from_its_scale_its_normalisation_and_its_padding() -> None:
    steps = (
        HostStep("image", {"to": "x", "high": 255.0}),
        HostStep("normalise", {"of": ["x"], "mean": [10.0, 20.0, 30.0], "std": [2.0, 3.0, 4.0]}),
        HostStep("pad", {"of": ["x"], "multiple": 8, "sides": "both"}),
    )
    picture = (255 * noise(13, 21, 3)).astype(np.uint8)
    made = host.apply(steps, {"x": picture})
    assert made["x"].shape == (1, 3, 16, 24)
    found = undone(steps, {"x": made["x"]}, host.records(made))["x"]["image"]
    np.testing.assert_array_equal(found, picture)


def test_pictures_of_a_few_cases_are_kept_and_scores_of_all() -> None:
    found = {f"c{i}": {"image": np.zeros((2, 2, 3), np.uint8), "score": np.zeros(1, np.float32)} for i in range(9)}
    kept = bounded(found)
    assert sum(name.endswith("/image") for name in kept) == MOST_CASES
    assert sum(name.endswith("/score") for name in kept) == 9
