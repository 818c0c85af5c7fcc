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
        spectrum._window("hann", 512), torch.hann_window(512, dtype=torch.float64).numpy(), atol=1e-12
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
