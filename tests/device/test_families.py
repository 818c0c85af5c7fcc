"""``exporter run`` and the metrics of ``verify`` for a model of every family, where there is no PyTorch."""

from __future__ import annotations

import json
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.define import eager
from exporter.host import apply, files
from exporter.registry import model
from exporter.stream import driven, joined
from tests.cli_fakes.tool import exported
from tests.device.there import there

SMALL_RESTORMER = {"dim": 8, "blocks": "1,1,1,1", "refinement": 1, "heads": "1,1,1,1"}
SMALL_VQA = {
    "backbone": "test_efficientnet",
    "second_backbone": "test_efficientnet",
    "fusion": "gated",
    "feature_dim": 32,
}
SIZE = {"H": 64, "W": 64}
COUNT = 3


def made(name: str, options: Mapping[str, Any] | None = None, dims: Mapping[str, Any] | None = None) -> Path:
    """A bundle with seeded weights, made once."""
    words = ["--no-profile"]
    words += [word for key, value in (options or {}).items() for word in ("--set", f"{key}={value}")]
    words += [word for key, value in (dims or {}).items() for word in ("--dim", f"{key}={value}")]
    return exported(name, "mobile", options=tuple(words))


def by_eager(name: str, values: Mapping[str, Any], options: Mapping[str, Any] | None = None, **more: int) -> Any:
    """What the module gives for one input, after the steps of the host."""
    import torch

    definition = model(name, dict(options or {}))
    module = eager({"model": name, "options": dict(options or {}), "checkpoint": None, "seed": 0})
    ready = apply(definition.before, dict(values), definition.dims)
    with torch.inference_mode():
        given = [torch.from_numpy(np.ascontiguousarray(ready[t.name])) for t in definition.inputs]
        outputs = module(*given, **more)
    outputs = tuple(outputs.values()) if isinstance(outputs, dict) else outputs
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    named = {t.name: y.numpy() for t, y in zip(definition.outputs, outputs, strict=False)}
    return apply(definition.after, {**ready, **named}, definition.dims)


def streamed_by_eager(name: str, values: Mapping[str, Any]) -> Any:
    """What the module gives frame by frame on its own state, between the steps of the host."""
    import torch

    definition = model(name)
    assert definition.stream is not None
    module = eager({"model": name, "options": {}, "checkpoint": None, "seed": 0})
    ready = apply(definition.before, dict(values), definition.dims)
    zeros = {t.name: np.zeros(t.sized({}), t.dtype) for t in definition.inputs if t.name != definition.stream.input}

    def call(given: Mapping[str, Any]) -> dict[str, Any]:
        with torch.inference_mode():
            outputs = module(*(torch.from_numpy(np.ascontiguousarray(given[t.name])) for t in definition.inputs))
        return {t.name: y.numpy() for t, y in zip(definition.outputs, outputs, strict=True)}

    (streamed,) = [t for t in definition.inputs if t.name == definition.stream.input]
    axis = definition.stream.axis
    steps = ready[streamed.name].shape[axis] // streamed.sized({})[axis]
    frames = joined(driven(call, {**zeros, **ready}, steps, definition.stream, definition.state), definition.stream)
    return apply(definition.after, {**ready, **frames}, definition.dims)


def photograph(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / 7 + columns / (3 + c)) for c in range(3)], axis=-1)
    return np.round(127 + 100 * waves).astype(np.uint8)


def written(picture: np.ndarray, path: Path) -> Path:
    from PIL import Image

    path.parent.mkdir(exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


@pytest.mark.slow
def test_a_picture_larger_than_a_tile_is_restored(tmp_path: Path) -> None:
    bundle = made("restormer", SMALL_RESTORMER, SIZE)
    given = written(photograph(70, 100), tmp_path / "given.png")
    found = there("run", bundle, "--target", "mobile", given, "-o", "restored.png", "--json", cwd=tmp_path)
    assert found.code == 0 and found.json["calls"] == 6, found
    restored = files.read(tmp_path / "restored.png")["image"]
    assert restored.shape == (70, 100, 3)
    # Tiles start at rows 0 and 8, and at columns 0, 32 and 40: this corner lies in the first one alone.
    alone = by_eager("restormer", {"image": photograph(70, 100)[:64, :64]}, SMALL_RESTORMER)["image"]
    corner = np.clip(alone[0, :, :8, :32].transpose(1, 2, 0) * 255, 0, 255)
    assert np.abs(corner - restored[:8, :32]).max() <= 1


@pytest.mark.slow
def test_a_metric_against_the_truth_is_printed_without_torch(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    bundle = made("restormer", SMALL_RESTORMER, {"H": 128, "W": 128})
    found = there("verify", bundle, "--json", cwd=tmp_path)
    assert found.code == 0, found
    (hop,) = found.json["hops"]
    psnr, ssim = hop["facts"]["metrics"]
    assert (psnr["name"], ssim["name"]) == ("psnr", "ssim") and len(psnr["cases"]) == 2
    for row in psnr["cases"].values():
        assert row["against"] == "truth" and abs(row["difference"]) < 1e-3 < abs(row["eager"])
    said = " ".join(there("verify", bundle, cwd=tmp_path).out.split())
    assert "psnr, mobile, sample-noise-photograph" in said and "against the truth (eager" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "dims", "metrics", "against"),
    [
        ("raft-stereo", {"iterations": 1}, {"H": 64, "W": 128}, ("epe", "d1-all"), "truth"),
        ("vqa", SMALL_VQA, {"batch": 1}, ("srcc", "plcc"), "truth"),
    ],
)
def test_the_metrics_of_other_families_are_printed_without_torch(
    name: str, options: dict[str, Any], dims: dict[str, Any], metrics: tuple[str, ...], against: str, tmp_path: Path
) -> None:
    pytest.importorskip("skimage")
    found = there("verify", made(name, options, dims), "--json", cwd=tmp_path)
    assert found.code == 0, found
    (hop,) = found.json["hops"]
    rows = {row["name"]: row["cases"] for row in hop["facts"]["metrics"]}
    assert set(rows) == set(metrics)
    for cases in rows.values():
        assert cases and all(row["against"] == against for row in cases.values())
        assert all(abs(row["difference"]) <= 1e-3 * max(abs(row["eager"]), 1) for row in cases.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "dims", "count"),
    [
        ("selective-raft-loop", {"max_height": 64, "max_width": 64}, {}, COUNT),
        ("selective-raft", {"iterations": COUNT, "max_height": 64, "max_width": 64}, {}, None),
        ("selective-igev-loop", {"max_height": 64, "max_width": 64}, {}, COUNT),
    ],
)
def test_a_pair_gives_its_disparity(
    name: str, options: dict[str, Any], dims: dict[str, Any], count: int | None, tmp_path: Path
) -> None:
    bundle = made(name, options, dims)
    scene = photograph(60, 70)
    pair = {"left": scene[:, 8:], "right": scene[:, :-8]}
    for side, picture in pair.items():
        written(picture, tmp_path / "pair" / f"{side}.png")
    chosen = ("--dim", f"iterations={count}") if count else ()
    found = there("run", bundle, "--target", "mobile", "pair", "-o", "d.pfm", *chosen, "--json", cwd=tmp_path)
    assert found.code == 0, found
    disparity = files.read(tmp_path / "d.pfm")["disparity"]
    expected = by_eager(name, pair, options, **({"iterations": count} if count else {}))["disparity"]
    assert disparity.shape == expected.shape == (60, 62)
    assert np.abs(disparity - expected).max() <= 1e-3 * np.abs(expected).max()


@pytest.mark.slow
def test_a_picture_gets_its_score(tmp_path: Path) -> None:
    bundle = made("vqa", SMALL_VQA)
    given = written(photograph(120, 90), tmp_path / "given.JPG")
    found = there("run", bundle, "--target", "mobile", given, "-o", "score.json", "--json", cwd=tmp_path)
    assert found.code == 0, found
    score = json.loads((tmp_path / "score.json").read_text())["score"]
    expected = by_eager("vqa", files.read(given), SMALL_VQA)["score"]
    assert np.allclose(score, expected, rtol=1e-4, atol=1e-5), (score, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gtcrn-stream", "gtcrn-stream-audio"])
def test_sound_goes_through_frame_by_frame(name: str, tmp_path: Path) -> None:
    samples = (3000 * np.sin(np.arange(16000) / 9)).astype("<i2")
    with wave.open(str(tmp_path / "in.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    found = there("run", made(name), "--target", "mobile", "in.wav", "-o", "out.wav", "--json", cwd=tmp_path)
    assert found.code == 0 and found.json["calls"] > 60, found
    sound = files.read(tmp_path / "out.wav")["audio"]
    expected = streamed_by_eager(name, files.read(tmp_path / "in.wav"))["audio"]
    assert sound.shape == expected.shape and np.abs(expected).max() > 1e-3, "not silence"
    assert np.abs(sound - expected).max() <= 2 / 32768, "as eager PyTorch frame by frame, to the steps of 16 bits"
