"""Recordings in hops, there and back."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.errors import Refused
from exporter.host.frames import frames, unframe

OPTIONS = {"sample_rate": 16000, "length": 256}


def recording(samples: int, rate: int = 16000) -> dict[str, np.ndarray]:
    audio = np.random.default_rng(0).uniform(-1, 1, samples).astype(np.float32)
    return {"audio": audio, "sample_rate": np.array(rate)}


@pytest.mark.parametrize("delay", [0, 100, 256, 300])
@pytest.mark.parametrize("samples", [1, 255, 256, 257, 5000])
def test_a_delayed_answer_comes_back_in_time(samples: int, delay: int) -> None:
    """A model that answers ``delay`` samples late is heard from its question's start to its end."""
    values = recording(samples)
    cut = frames(values, **OPTIONS, result="audio_in", delay=delay)
    signal = cut["audio_in"]
    assert signal.dtype == np.float32 and signal.shape[0] == 1 and signal.shape[1] % 256 == 0
    assert signal.shape[1] - 256 < samples + delay <= signal.shape[1]
    late = np.concatenate([np.zeros((1, delay), np.float32), signal], axis=1)[:, : signal.shape[1]]
    back = unframe({**cut, "audio_out": late}, sample_rate=16000, source="audio_out", like="audio_in", delay=delay)
    np.testing.assert_array_equal(back["audio"], values["audio"])
    assert int(back["sample_rate"]) == 16000


def test_without_a_record_the_padding_stays() -> None:
    cut = frames(recording(300), **OPTIONS, result="audio_in")
    back = unframe({"audio_out": cut["audio_in"]}, sample_rate=16000, source="audio_out", like="audio_in")
    assert back["audio"].shape == (512,)


def test_a_signal_that_is_framed_already_is_taken_as_it_is() -> None:
    assert frames({"audio_in": np.zeros((1, 512), np.float32)}, **OPTIONS, result="audio_in") == {}


def test_what_is_refused() -> None:
    cases = [(recording(300, rate=8000), "wrong-sample-rate"), (recording(0), "bad-sample"), ({}, "bad-sample")]
    cases += [({**recording(4), "audio": np.zeros((2, 4))}, "bad-sample"), ({"audio": np.zeros(4)}, "bad-sample")]
    for values, code in cases:
        with pytest.raises(Refused) as caught:
            frames(values, **OPTIONS, result="audio_in")
        assert caught.value.code == code
    with pytest.raises(Refused, match="delay -1"):
        frames(recording(300), **OPTIONS, result="audio_in", delay=-1)
    with pytest.raises(Refused, match=r"y has shape \(2, 256\)"):
        unframe({"y": np.zeros((2, 256))}, sample_rate=16000, source="y")
