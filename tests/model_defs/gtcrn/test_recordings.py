"""The real inputs of GTCRN: of the folder that ``EXPORTER_DATA`` names and of no other, with a truth that is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exporter import registry
from exporter.host import files
from model_defs.gtcrn.recordings import SAMPLES, recordings

RATE = 16000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of made-up recordings, named by the variable: the middle of each is told from its ends."""
    (tmp_path / "gtcrn").mkdir()
    for seed, name in enumerate(("noisy", "enhanced_reference")):
        audio = np.random.default_rng(seed).uniform(-0.5, 0.5, 2 * SAMPLES).astype(np.float32)
        audio[: SAMPLES // 2] = audio[-SAMPLES // 2 :] = 0.9
        write(tmp_path / "gtcrn" / f"{name}.wav", audio)
    monkeypatch.setenv("EXPORTER_DATA", str(tmp_path))
    return tmp_path


def write(path: Path, audio: np.ndarray) -> None:
    files.write(path, {"audio": audio, "sample_rate": np.array(RATE)})


def middle(path: Path) -> np.ndarray:
    return files.read(path)["audio"][SAMPLES // 2 : SAMPLES // 2 + SAMPLES]


def test_a_recording_is_its_middle_and_has_no_truth(folder: Path) -> None:
    recording, _ = recordings()
    assert recording.name == "recording" and not recording.truth
    assert np.array_equal(recording.values["audio"], middle(folder / "gtcrn" / "noisy.wav"))
    assert int(recording.values["sample_rate"]) == RATE


def test_noise_of_known_strength_over_speech_that_is_the_truth(folder: Path) -> None:
    """The speech is what GTCRN gave before, untouched; the noise lies 5 dB below it and is white."""
    _, mixed = recordings()
    speech, given = mixed.truth["audio"], mixed.values["audio"]
    assert mixed.name == "mixed" and given.dtype == np.float32 and given.shape == speech.shape == (SAMPLES,)
    assert np.array_equal(speech, middle(folder / "gtcrn" / "enhanced_reference.wav"))
    noise = given.astype(np.float64) - speech
    ratio = 10 * np.log10(np.mean(speech.astype(np.float64) ** 2) / np.mean(noise**2))
    assert ratio == pytest.approx(5.0, abs=0.1)
    assert abs(np.corrcoef(noise, speech)[0, 1]) < 0.02
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.02


def test_the_same_on_every_call(folder: Path) -> None:
    for once, again in zip(recordings(), recordings(), strict=True):
        assert once.name == again.name and np.array_equal(once.values["audio"], again.values["audio"])


def test_each_file_counts_on_its_own(folder: Path) -> None:
    (folder / "gtcrn" / "noisy.wav").unlink()
    assert [sample.name for sample in recordings()] == ["mixed"]


def test_a_short_recording_is_taken_whole(folder: Path) -> None:
    short = np.random.default_rng(2).uniform(-0.5, 0.5, 1000).astype(np.float32)
    write(folder / "gtcrn" / "noisy.wav", short)
    assert next(iter(recordings())).values["audio"].shape == (1000,)


@pytest.mark.parametrize("value", [None, ""])
def test_nothing_of_the_current_folder_without_the_variable(
    folder: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    """Unset or empty it names no folder: the path of an empty text would be wherever the user stands."""
    assert len(list(recordings())) == 2
    monkeypatch.chdir(folder)
    monkeypatch.delenv("EXPORTER_DATA") if value is None else monkeypatch.setenv("EXPORTER_DATA", value)
    assert list(recordings()) == []


def test_nothing_of_a_folder_without_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORTER_DATA", str(tmp_path / "absent"))
    assert list(recordings()) == []


@pytest.mark.parametrize("name", ["gtcrn", "gtcrn-stream", "gtcrn-stream-audio"])
def test_every_definition_has_them(name: str, folder: Path) -> None:
    samples = registry.model(name).samples
    assert samples is not None and [sample.name for sample in samples()] == ["recording", "mixed"]


def test_the_truth_is_said_to_be_gtcrns_own(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real files: the truth is enhanced speech and not the noisy recording, and the docstring says whose it is."""
    monkeypatch.setenv("EXPORTER_DATA", str(data))
    recording, mixed = recordings()
    enhanced = files.read(data / "gtcrn" / "enhanced_reference.wav")["audio"]
    start = (len(enhanced) - SAMPLES) // 2
    assert np.array_equal(mixed.truth["audio"], enhanced[start : start + SAMPLES])
    assert not np.allclose(recording.values["audio"], mixed.truth["audio"], atol=1e-3)
    assert "GTCRN itself" in str(recordings.__doc__)
