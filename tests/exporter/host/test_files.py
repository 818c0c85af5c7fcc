"""Recordings and tensors in and out."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from exporter.errors import Refused
from exporter.host import files


def recording(path: Path, samples: np.ndarray, rate: int = 16000, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


def test_a_recording_comes_back_as_it_was(tmp_path: Path) -> None:
    samples = np.arange(-32768, 32768, 7, dtype="<i2")
    values = files.read(recording(tmp_path / "a.wav", samples, 8000))
    assert int(values["sample_rate"]) == 8000
    files.write(tmp_path / "b.wav", values)
    assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "a.wav").read_bytes()


def test_samples_are_rounded_down_and_clipped_as_libsndfile_does(tmp_path: Path) -> None:
    audio = np.array([0.0, 0.6 / 32768, -0.4 / 32768, 1.5, -1.5], np.float32)
    files.write(tmp_path / "a.wav", {"audio": audio, "sample_rate": np.array(16000)})
    found = files.read(tmp_path / "a.wav")["audio"] * 32768
    assert found.tolist() == [0, 0, -1, 32767, -32768]


@pytest.mark.parametrize("kept", [10, 44, 45, 60, 61])
def test_a_recording_that_is_cut_is_refused(tmp_path: Path, kept: int) -> None:
    path = recording(tmp_path / "a.wav", np.zeros(100, "<i2"))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(Refused) as caught:
        files.read(path)
    assert caught.value.code == "bad-sample"


def test_two_channels_and_other_widths_are_refused(tmp_path: Path) -> None:
    for path in (
        recording(tmp_path / "stereo.wav", np.zeros(100, "<i2"), channels=2),
        recording(tmp_path / "wide.wav", np.zeros(100, "<i4"), width=4),
    ):
        with pytest.raises(Refused, match=path.name):
            files.read(path)


def test_an_output_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"older")
    with pytest.raises(KeyError):
        files.write(tmp_path / "a.wav", {"nothing": np.zeros(1)})
    assert (tmp_path / "a.wav").read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]
