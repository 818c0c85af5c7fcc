"""The numpy STFT against PyTorch's own, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from exporter import host
from exporter.errors import Refused
from exporter.host import spectrum
from exporter.spec import HostStep

OPTIONS = {"sample_rate": 16000, "length": 512, "hop": 256, "window": "sqrt-hann"}


def audio(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)


def transformed(signal: np.ndarray, **options: object) -> np.ndarray:
    values = {"audio": signal, "sample_rate": np.array(16000)}
    return spectrum.stft(values, **{**OPTIONS, "result": "spec", **options})["spec"]


@pytest.mark.parametrize("samples", [512, 513, 5000, 16000])
def test_stft_is_that_of_pytorch(samples: int) -> None:
    torch = pytest.importorskip("torch")
    signal = audio(samples)
    window = torch.hann_window(512, dtype=torch.float64).sqrt()
    wanted = torch.stft(torch.from_numpy(signal).double(), 512, 256, 512, window, return_complex=True)
    found = transformed(signal)
    assert found.shape == (1, 257, wanted.shape[1], 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], torch.view_as_real(wanted).numpy(), atol=2e-5, rtol=0)


@pytest.mark.parametrize("samples", [512, 2560, 15872])
def test_istft_is_that_of_pytorch_and_inverts(samples: int) -> None:
    torch = pytest.importorskip("torch")
    signal = audio(samples)
    spec = transformed(signal)
    found = spectrum.istft({"spec": spec}, **OPTIONS, source="spec")
    window = torch.hann_window(512, dtype=torch.float64).sqrt()
    both = torch.view_as_complex(torch.from_numpy(spec[0].astype(np.float64)))
    wanted = torch.istft(both, 512, 256, 512, window)
    np.testing.assert_allclose(found["audio"], wanted.numpy(), atol=1e-6, rtol=0)
    np.testing.assert_allclose(found["audio"], signal[: len(found["audio"])], atol=1e-5, rtol=0)
    assert int(found["sample_rate"]) == 16000


def test_the_window_is_periodic() -> None:
    # The symmetric window of numpy.hanning differs by 6e-3, and is not undone by overlap.
    torch = pytest.importorskip("torch")
    np.testing.assert_allclose(
        spectrum.window_of("hann", 512), torch.hann_window(512, dtype=torch.float64).numpy(), atol=1e-12
    )


@pytest.mark.parametrize(
    ("signal", "rate", "options", "code"),
    [
        (audio(2000), 8000, {}, "wrong-sample-rate"),
        (audio(256), 16000, {}, "bad-sample"),
        (audio(2000).reshape(2, 1000), 16000, {}, "bad-sample"),
        (audio(2000), 16000, {"window": "kaiser"}, "unknown-step"),
    ],
)
def test_what_is_refused(signal: np.ndarray, rate: int, options: dict[str, object], code: str) -> None:
    values = {"audio": signal, "sample_rate": np.array(rate)}
    with pytest.raises(Refused) as caught:
        spectrum.stft(values, **{**OPTIONS, "result": "spec", **options})  # type: ignore[arg-type]
    assert caught.value.code == code


def test_an_unknown_step_names_the_nearest() -> None:
    with pytest.raises(Refused, match="stft") as caught:
        host.apply((HostStep("stfft"),), {})
    assert caught.value.code == "unknown-step"


# ---------------------------------------------------------------------------------------------------- frame by frame

WINDOWS = [(512, 256, "sqrt-hann"), (400, 100, "hann"), (64, 16, "sqrt-hann")]


def pieces(signal: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """The signal in pieces whose sizes go round."""
    cuts, at = [], 0
    while at < len(signal):
        size = sizes[len(cuts) % len(sizes)]
        cuts.append(signal[at : at + size])
        at += size
    return cuts


@pytest.mark.parametrize(("length", "hop", "window"), WINDOWS)
@pytest.mark.parametrize("sizes", [[256], [1000], [1, 700, 0, 33]])
@pytest.mark.parametrize("samples", [512, 513, 2047])
def test_frames_of_a_stream_are_those_of_the_whole(
    samples: int, sizes: list[int], length: int, hop: int, window: str
) -> None:
    signal = audio(samples)
    wanted = transformed(signal, length=length, hop=hop, window=window)
    stream = spectrum.StreamingSTFT(length=length, hop=hop, window=window)
    for _ in range(2):  # a stream that was finished begins again
        found = [stream.push(piece) for piece in pieces(signal, sizes)] + [stream.finish()]
        np.testing.assert_array_equal(np.concatenate(found, axis=2), wanted)


def test_a_frame_comes_as_soon_as_its_window_is_full() -> None:
    stream = spectrum.StreamingSTFT()
    counts = [stream.push(piece).shape[2] for piece in pieces(audio(256 * 6), [256])]
    # The first frame needs one sample more than half a window: the mirror at its left edge.
    assert counts == [0, 2, 1, 1, 1, 1]


@pytest.mark.parametrize(("length", "hop", "window"), WINDOWS)
@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_samples_of_a_stream_are_those_of_the_whole(at_once: int, length: int, hop: int, window: str) -> None:
    torch = pytest.importorskip("torch")
    spec = transformed(audio(3000), length=length, hop=hop, window=window)
    stream = spectrum.StreamingISTFT(length=length, hop=hop, window=window)
    for _ in range(2):
        starts = range(0, spec.shape[2], at_once)
        found = np.concatenate([stream.push(spec[:, :, s : s + at_once]) for s in starts] + [stream.finish()])
        both = torch.view_as_complex(torch.from_numpy(spec[0].astype(np.float64)))
        wanted = torch.istft(both, length, hop, length, torch.from_numpy(spectrum.window_of(window, length)))
        assert found.dtype == np.float32 and found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-6, rtol=0)


def test_a_stream_too_short_for_a_window_is_refused() -> None:
    stream = spectrum.StreamingSTFT()
    assert stream.push(audio(256)).shape == (1, 257, 0, 2)
    with pytest.raises(Refused) as caught:
        stream.finish()
    assert caught.value.code == "bad-sample"
    with pytest.raises(Refused, match="hop 300"):
        spectrum.StreamingISTFT(length=512, hop=300)


def test_a_spectrum_that_is_there_already_is_taken_as_it_is() -> None:
    older = {"spec": np.zeros((1, 257, 3, 2), np.float32)}
    assert spectrum.stft(older, **OPTIONS, result="spec") == {}
    recording = {**older, "audio": audio(2000), "sample_rate": np.array(16000)}
    np.testing.assert_array_equal(spectrum.stft(recording, **OPTIONS, result="spec")["spec"], transformed(audio(2000)))
    with pytest.raises(Refused, match="audio"):
        spectrum.stft({}, **OPTIONS, result="spec")
    with pytest.raises(Refused, match="sample_rate"):
        spectrum.stft({"audio": audio(2000)}, **OPTIONS, result="spec")
