"""Right on a real recording: artifacts against the published result and against eager."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np

from exporter import host
from exporter.define import eager
from exporter.host import files
from exporter.registry import model
from tests.bench.figure import CHECKPOINT, ENHANCED, EXPORTER, NOISY, Figure, at_least, at_most

TARGETS = ("openvino", "mobile")
SIZES = (2, 63, 611, 1500)


def figures(folder: Path) -> list[Figure]:
    """SNR of the whole-recording model and of the stream, parity at four sizes, stream against offline."""
    found: list[Figure] = []
    reference = files.read(ENHANCED)["audio"]
    spectrum, offline = _eager_offline()
    clean = host.apply(model("gtcrn").after, {"enhanced": offline})["audio"]
    for name in ("gtcrn", "gtcrn-stream"):
        for target in TARGETS:
            _export(folder, name, target)
            out = folder / f"{name}-{target}.wav"
            _run(folder, "run", f"{name}.bundle", "--target", target, str(NOISY), "-o", str(out))
            audio, raw = files.read(out)["audio"], folder / f"{name}-{target}.npz"
            _run(folder, "run", f"{name}.bundle", "--target", target, str(NOISY), "-o", str(raw))
            exact = np.load(raw)["audio"]
            label = f"`{name}`, {target}, on a real recording"
            found.append(at_least(f"{label}: SNR against the published result", 70, snr(audio, reference), "dB"))
            found.append(at_least(f"{label}: SNR against eager float32", 100, snr(exact, clean), "dB"))
    found += _sizes(folder)
    found += _stream_against_offline(spectrum, offline)
    found += _drift(folder)
    return found


def snr(signal: np.ndarray, reference: np.ndarray) -> float:
    """Signal-to-noise ratio in dB of a signal against its reference, over the samples both have."""
    length = min(len(signal), len(reference))
    a, b = signal[:length].astype(np.float64), reference[:length].astype(np.float64)
    return float(10 * np.log10(np.sum(b**2) / np.sum((a - b) ** 2)))


def _eager_offline() -> tuple[np.ndarray, np.ndarray]:
    import torch

    module = eager({"model": "gtcrn", "options": {}, "checkpoint": str(CHECKPOINT), "seed": 0})
    spectrum = host.apply(model("gtcrn").before, files.read(NOISY))["spec"]
    with torch.inference_mode():
        return spectrum, module(torch.from_numpy(spectrum)).numpy()


def _export(folder: Path, name: str, target: str) -> None:
    _run(folder, target, name, "--checkpoint", str(CHECKPOINT), "--samples", str(NOISY), "--no-profile")


def _run(folder: Path, *words: str) -> str:
    return subprocess.run([EXPORTER, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def _sizes(folder: Path) -> list[Figure]:
    """One artifact at four lengths of the recording (repeated where it is too short)."""
    lengths = folder / "lengths"
    lengths.mkdir()
    spectrum = host.apply(model("gtcrn").before, files.read(NOISY))["spec"]
    longer = np.concatenate([spectrum, spectrum, spectrum], axis=2)
    for size in SIZES:
        np.savez(lengths / f"T{size}.npz", spec=longer[:, :, :size])
    words = ("verify", "gtcrn.bundle", "--samples", str(lengths), "--checkpoint", str(CHECKPOINT), "--json")
    results = [r for r in json.loads(_run(folder, *words))["results"] if r["case"].startswith("sample-T")]
    found = []
    for target in TARGETS:
        for size in SIZES:
            mine = [r for r in results if r["target"] == target and r["case"] == f"sample-T{size}"]
            worst = max(r["amplification"] for r in mine)
            passed = all(r["verdict"] == "PASS" for r in mine)
            what = f"`gtcrn`, {target}, T = {size}: error over eager's own"
            found.append(Figure(what, "PASS", worst, passed, "x"))
    return found


def _stream_against_offline(spectrum: np.ndarray, offline: np.ndarray) -> list[Figure]:
    """611 frames on the stream's own state, in eager float32."""
    import torch

    definition = model("gtcrn-stream")
    module = eager({"model": "gtcrn-stream", "options": {}, "checkpoint": str(CHECKPOINT), "seed": 0})
    state = [torch.zeros(t.shape) for t in definition.inputs[1:]]  # type: ignore[arg-type]
    frames = []
    with torch.inference_mode():
        for frame in torch.from_numpy(spectrum).split(1, dim=2):
            enhanced, *state = module(frame, *state)
            frames.append(enhanced.numpy())
    stream = np.concatenate(frames, axis=2)
    waves = [host.apply(definition.after, {"enhanced": y})["audio"] for y in (stream, offline)]
    spectral, largest = float(np.abs(stream - offline).max()), float(np.abs(offline).max())
    what = f"`gtcrn-stream` against `gtcrn`, eager, {len(frames)} frames, state fed back: largest difference"
    note = f"{spectral:.1e} at values to {largest:.1f}, where one unit in the last place of float32 is 1.9e-06"
    return [
        at_most(f"{what} of the waveform", 2e-6, float(np.abs(waves[0] - waves[1]).max()), ""),
        at_most(f"{what} of the spectrum, over its largest value", 2e-6, spectral / largest, "", note=note),
    ]


def _drift(folder: Path) -> list[Figure]:
    """The drift of the compiled stream over the recording: its error after the last steps over eager's own."""
    value = json.loads(_run(folder, "verify", "gtcrn-stream.bundle", "--json"))
    found = []
    for hop in value["hops"]:
        curve = hop["facts"]["drift"]["sample-noisy"]
        error, eager_error = (np.array(curve[key])[-50:].mean() for key in ("error", "eager"))
        what = f"`gtcrn-stream`, {hop['target']}, {len(curve['error'])} frames on its own state: drift of the last 50"
        found.append(Figure(what, "PASS", float(error / eager_error), hop["verdict"] == "PASS", "x eager's"))
    return found
