"""The document's figures about GTCRN that can be computed, each with the counter named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from exporter import define, host, registry
from exporter.host import files
from model_defs.gtcrn.network import GTCRN
from model_defs.gtcrn.stream import initial_state


def test_parameters_of_gtcrn() -> None:
    """48 K with the frozen filters, which the repository counts; 23.7 K trained, which the paper counts."""
    parameters = list(GTCRN().parameters())
    assert sum(p.numel() for p in parameters) == 48_245
    assert sum(p.numel() for p in parameters if p.requires_grad) == 23_669


@torch.no_grad()
def test_macs_of_gtcrn_for_a_second() -> None:
    """63 frames are 26.60 M multiply-accumulates; the repository's 33.0 M are another counter's.

    Counter: ``torch.utils.flop_counter.FlopCounterMode``, halved: convolutions and matrix products, those of the
    recurrent layers among them.
    """
    with FlopCounterMode(display=False) as counter:
        GTCRN().eval()(torch.zeros(1, 257, 63, 2))
    assert counter.get_total_flops() / 2 / 1e6 == pytest.approx(26.60, abs=0.005)


@torch.no_grad()
def test_streaming_is_offline(gtcrn_checkpoint: Path, data: Path) -> None:
    """Frame by frame the same spectrum, on a second of real speech; in float64, where no processor's sums matter."""
    models = (define.weighted(registry.model(name), str(gtcrn_checkpoint), 0)[0] for name in ("gtcrn", "gtcrn-stream"))
    offline, stream = (model.double() for model in models)
    values = host.apply(registry.model("gtcrn").before, files.read(data / "gtcrn" / "noisy.wav"))
    spectrum, frames = torch.from_numpy(values["spec"][:, :, 100:163]).double(), []
    state = [value.double() for value in initial_state()]
    for frame in spectrum.split(1, dim=2):
        enhanced, *state = stream(frame, *state)
        frames.append(enhanced)
    wanted = offline(spectrum)
    assert wanted.abs().max() > 1
    assert (torch.cat(frames, dim=2) - wanted).abs().max() < 1e-12 * wanted.abs().max()
