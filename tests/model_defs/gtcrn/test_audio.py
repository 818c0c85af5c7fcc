"""``gtcrn-stream-audio``: samples in, samples out, equal to STFT, ``gtcrn-stream`` and inverse STFT around it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exporter import define, host, registry
from exporter.host import spectrum
from model_defs.gtcrn import STFT
from model_defs.gtcrn.audio import AUDIO_STATES, HOP, analysis_basis, synthesis_basis, window
from model_defs.gtcrn.stream import STATES

HOPS = 24


def stepped(name: str, streamed: np.ndarray, states: list[tuple[int, ...]]) -> np.ndarray:
    """The streamed output of a model with seeded weights, driven along a signal from zero states."""
    definition = registry.model(name)
    module, _ = define.weighted(definition, None, 0)
    assert definition.stream is not None
    axis, current, collected = definition.stream.axis, [torch.zeros(shape) for shape in states], []
    step = definition.inputs[0].shape[axis]
    with torch.no_grad():
        for piece in torch.from_numpy(streamed).split(step, axis):
            output, *current = module(piece, *current)
            collected.append(output)
    return torch.cat(collected, axis).numpy()


@pytest.fixture(scope="module")
def recording() -> np.ndarray:
    """Half a second with a hop of silence at either end, where a centred STFT would see reflections."""
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, HOPS * HOP).astype(np.float32)
    audio[:HOP] = audio[-HOP - 1 :] = 0  # one more at the end: a reflection leaves the last sample out
    return audio


def test_it_is_stft_stream_and_inverse_stft(recording: np.ndarray) -> None:
    """Within float noise, and 256 samples later."""
    values = {"audio": recording, "sample_rate": np.array(16000)}
    mix = spectrum.stft(values, **STFT, result="mix")["mix"]
    enhanced = stepped("gtcrn-stream", mix, [state.shape for state in STATES])
    wanted = spectrum.istft({"enhanced": enhanced}, **STFT, source="enhanced")["audio"]
    delayed = np.append(recording, np.zeros(HOP, np.float32))[np.newaxis]
    found = stepped("gtcrn-stream-audio", delayed, [state.shape for state in AUDIO_STATES])[0, HOP:]
    assert found.shape == wanted.shape == recording.shape
    assert np.linalg.norm(found - wanted) < 1e-5 * np.linalg.norm(wanted)
    assert np.abs(wanted).max() > 1e-2


def test_host_steps_make_up_for_the_delay(recording: np.ndarray) -> None:
    """A recording of no whole number of hops comes back with its own length, in time with itself."""
    definition = registry.model("gtcrn-stream-audio")
    audio = recording[:-100]
    values = host.apply(definition.before, {"audio": audio, "sample_rate": np.array(16000)})
    assert values["audio_in"].shape == (1, (HOPS + 1) * HOP)
    late = np.concatenate((np.zeros((1, HOP), np.float32), values["audio_in"][:, :-HOP]), axis=1)
    given = host.apply(definition.after, {**values, "audio_out": late})["audio"]
    assert np.array_equal(given, audio)


def test_the_windows_of_two_frames_add_up_to_one() -> None:
    squared = window(torch.float64).square()
    torch.testing.assert_close(squared[:HOP] + squared[HOP:], torch.ones(HOP, dtype=torch.float64))


def test_both_matrices_undo_each_other_under_overlap() -> None:
    """A stationary signal of three hops: the middle one comes back."""
    signal = torch.randn(3 * HOP, dtype=torch.float64)
    frames = torch.stack((signal[: 2 * HOP], signal[HOP:]))
    through = frames @ analysis_basis(torch.float64) @ synthesis_basis(torch.float64)
    torch.testing.assert_close(through[0, HOP:] + through[1, :HOP], signal[HOP : 2 * HOP])
    real, imaginary = (frames[0] @ analysis_basis(torch.float64)).split(HOP + 1)
    wanted = torch.fft.rfft(frames[0] * window(torch.float64))
    torch.testing.assert_close(torch.complex(real, imaginary), wanted)


def test_the_deployed_form_is_the_published_one() -> None:
    definition = registry.model("gtcrn-stream-audio")
    module = define.weighted(definition, None, 0)[0].double()
    assert len(module.state_dict()) == 271
    given = [torch.rand(tensor.shape, dtype=torch.float64) - 0.5 for tensor in definition.inputs]
    assert definition.deploy is not None
    with torch.no_grad():
        wanted, found = module(*given), definition.deploy(module)(*given)
    for tensor, a, b in zip(definition.outputs, found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11, msg=tensor.name)
