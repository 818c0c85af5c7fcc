"""The network holds the published tensors, by name and shape, and a stream of it is the whole."""

from __future__ import annotations

import pytest
import torch

from exporter import define, registry
from model_defs.gtcrn.network import GTCRN
from model_defs.gtcrn.stream import initial_state

SHAPES = {
    "erb.erb_fc.weight": (64, 192),
    "erb.ierb_fc.weight": (192, 64),
    "encoder.en_convs.2.point_conv1.weight": (16, 24, 1, 1),
    "encoder.en_convs.2.point_act.weight": (1,),
    "encoder.en_convs.3.depth_conv.weight": (16, 1, 3, 3),
    "encoder.en_convs.4.point_conv2.weight": (8, 16, 1, 1),
    "encoder.en_convs.4.tra.att_gru.weight_ih_l0": (48, 8),
    "encoder.en_convs.4.tra.att_gru.weight_hh_l0": (48, 16),
    "encoder.en_convs.4.tra.att_fc.weight": (8, 16),
    "dpgrnn1.intra_rnn.rnn1.weight_ih_l0": (12, 8),
    "dpgrnn1.intra_rnn.rnn2.weight_hh_l0_reverse": (12, 4),
    "dpgrnn1.intra_fc.weight": (16, 16),
    "dpgrnn2.intra_ln.weight": (33, 16),
    "dpgrnn2.inter_rnn.rnn1.weight_ih_l0": (24, 8),
    "decoder.de_convs.0.point_conv1.weight": (24, 16, 1, 1),
    "decoder.de_convs.2.point_conv2.weight": (16, 8, 1, 1),
    "decoder.de_convs.3.conv.weight": (16, 8, 1, 5),
    "decoder.de_convs.4.conv.weight": (16, 2, 1, 5),
}


def test_its_tensors_are_the_published_ones() -> None:
    tensors = GTCRN().state_dict()
    assert len(tensors) == 271
    assert {name: tuple(tensors[name].shape) for name in SHAPES} == SHAPES


def test_its_parameters_are_counted_as_published() -> None:
    """48,245: 23,669 that train, 24,576 of the band filters, which do not; and 602 numbers of batch normalisations."""
    network = GTCRN()
    frozen = sum(p.numel() for name, p in network.named_parameters() if name.startswith("erb."))
    assert sum(p.numel() for p in network.parameters()) == 48_245 == 23_669 + frozen
    assert frozen == 24_576 and not any(p.requires_grad for p in network.erb.parameters())
    assert sum(b.numel() for b in network.buffers()) == 602


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 1])
def test_frame_by_frame_is_the_whole_with_seeded_weights(seed: int) -> None:
    """In float64, where nothing but a mistake is larger than 1e-9."""
    whole, stream = (
        define.weighted(registry.model(name), None, seed)[0].double() for name in ("gtcrn", "gtcrn-stream")
    )
    spectrum = torch.randn(1, 257, 40, 2, generator=torch.Generator().manual_seed(seed)).double()
    with define.in_float64(whole), define.in_float64(stream):
        state, frames = [value.double() for value in initial_state()], []
        for frame in spectrum.split(1, dim=2):
            enhanced, *state = stream(frame, *state)
            frames.append(enhanced)
        wanted = whole(spectrum)
    assert (torch.cat(frames, dim=2) - wanted).abs().max() < 1e-9 * wanted.abs().max()
