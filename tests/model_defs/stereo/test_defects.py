"""What the document's selective unit and the published stereo code get wrong, each shown right here."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from exporter import registry
from exporter.errors import Refused
from model_defs.stereo import gru
from model_defs.stereo.correlation import GatherLookup, GridLookup, columns, correlation_pyramid
from model_defs.stereo.gru import RaftConvGRU, SelectiveConvGRU, SelectiveConvGRUFused
from model_defs.stereo.update import RaftStereoUpdate, SelectiveUpdate

from .specimens import built, drawn, meta, pair, seeded

ONE_COLUMN = "the coarsest likenesses would be one column wide, and the published sampler then divides by 0: NaN"


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def macs(unit: nn.Module, *channels: int) -> int:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        unit(*(torch.empty(1, count, 8, 8) for count in channels))
    return counter.get_total_flops() // 2


def test_the_unit_with_joined_input_is_another_networks() -> None:
    """The document gives FoundationStereo's unit (conv0, conv1, hx) as Selective-Stereo's; neither loads the other."""
    with torch.device("meta"):
        published, documents = SelectiveConvGRU(), SelectiveConvGRUFused()
    assert {name.split(".")[0] for name in published.state_dict()} == {"small_gru", "large_gru"}
    assert {name.split(".")[0] for name in documents.state_dict()} - {"small_gru", "large_gru"} == {"conv0", "conv1"}
    with pytest.raises(RuntimeError, match="Unexpected key"):
        published.load_state_dict(documents.state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        documents.load_state_dict(published.state_dict())
    assert all("conv0" not in name for name in meta("selective-raft").state_dict())


@torch.no_grad()
def test_joined_features_that_are_no_concatenation() -> None:
    """The document's equations say ``hx = [h, x]``; its listing has ``hx = conv1 [x, h]`` and defines no conv1.

    Where both convolutions pass everything on, the unit is the plain one with the gates' columns in the other order.
    """
    joined, plain = seeded(SelectiveConvGRUFused(4, 6)), seeded(SelectiveConvGRU(4, 6))
    for conv in (joined.conv0[0], joined.conv1[0]):
        nn.init.dirac_(conv.weight)
        nn.init.zeros_(conv.bias)
    for name in ("small_gru", "large_gru"):
        unit, other = plain.get_submodule(name), joined.get_submodule(name)
        for gate in ("convz", "convr", "convq"):
            weight = getattr(unit, gate).weight
            swapped = torch.cat([weight[:, 4:], weight[:, :4]], dim=1) if gate != "convq" else weight
            getattr(other, gate).weight.copy_(swapped)
            getattr(other, gate).bias.copy_(getattr(unit, gate).bias)
    # Nothing negative, so that the ReLUs pass it on too.
    given = drawn(1, 1, 5, 6, low=0.0), drawn(1, 4, 5, 6, low=0.0), drawn(1, 6, 5, 6, low=0.0)
    torch.testing.assert_close(joined(*given), plain(*given))
    seeded(joined)
    assert not torch.allclose(joined(*given), plain(*given))


def test_widths_that_hold_at_the_coarsest_level_only() -> None:
    """The document's 256 and 384 channels are those of the coarsest unit; the two finer ones take 384 and 512."""
    state = meta("selective-raft").state_dict()
    for level, joined in (("16", 384), ("08", 512), ("04", 512)):
        for unit in ("small_gru", "large_gru"):
            assert state[f"update_block.gru{level}.{unit}.convz.weight"].shape[:2] == (128, joined)


@pytest.mark.parametrize(("kind", "of_input", "of_state"), [(SelectiveConvGRU, 0, 0), (SelectiveConvGRUFused, 2, 1)])
@torch.no_grad()
def test_a_small_kernel_that_is_said_to_see_one_pixel(kind: type[nn.Module], of_input: int, of_state: int) -> None:
    """True of Selective-Stereo's unit; the document's has 3x3 convolutions in front, and sees up to two pixels away."""
    unit, size, middle = seeded(kind(4, 6)), 9, 4
    h, x = drawn(1, 4, size, size), drawn(1, 6, size, size, seed=1)
    one = torch.ones(1, 1, size, size, dtype=h.dtype)

    def reach(moved: tuple[Tensor, Tensor]) -> int:
        changed = (unit(one, *moved) - unit(one, h, x)).abs().amax((0, 1)).nonzero()
        return int((changed - middle).abs().max())

    spot = torch.zeros(1, 1, size, size, dtype=h.dtype)
    spot[..., middle, middle] = 1.0
    assert reach((h, x + spot)) == of_input and reach((h + spot, x)) == of_state


@torch.no_grad()
def test_a_large_unit_that_is_said_to_run_when_needed() -> None:
    """Both units of the document's selection always run; against the large one alone it costs 11 % more, not less."""
    unit, ran = seeded(SelectiveConvGRU(4, 6)), []
    unit.large_gru.register_forward_hook(lambda *_: ran.append("large"))
    unit(torch.ones(1, 1, 5, 6).double(), drawn(1, 4, 5, 6), drawn(1, 6, 5, 6))
    assert ran == ["large"]
    with torch.device("meta"):
        both, large = SelectiveConvGRU(), RaftConvGRU()
    assert macs(both, 1, 128, 256) / macs(large, 128, 256) == pytest.approx(10 / 9)


def test_a_convolution_that_is_said_to_compress() -> None:
    """The document's 384 -> 384 keeps the width; with it the unit is more than twice as large."""
    with torch.device("meta"):
        coarse, fine = SelectiveConvGRUFused(128, 256), SelectiveConvGRUFused(128, 384)
        published = SelectiveConvGRU(128, 256)
    assert coarse.conv1[0].in_channels == coarse.conv1[0].out_channels == 384
    assert (parameters(coarse.conv1), parameters(fine.conv1)) == (1_327_488, 2_359_808)
    assert parameters(coarse) > 2 * parameters(published)


def test_attention_that_is_said_to_change_over_time() -> None:
    """The document's A_t has a time index; it is computed once per level, from the context alone."""
    network, given, seen = meta("selective-raft", iterations=3, attention_map=True), [], []
    network.sam.register_forward_pre_hook(lambda _, inputs: given.extend(inputs))
    network.sam.register_forward_hook(lambda *call: seen.append(call[-1]))
    with torch.device("meta"):
        maps = network(torch.empty(1, 3, 64, 64), torch.empty(1, 3, 64, 64))[2:]
    assert [tuple(x.shape) for x in given] == [(1, 128, size, size) for size in (16, 8, 4)]
    assert len(seen) == 3 and all(a is b for a, b in zip(seen, maps, strict=True))


@pytest.mark.parametrize("kernel", [0, 2, 4])
def test_an_even_kernel(kernel: int) -> None:
    """The document pads by ``kernel // 2``, with which an even kernel changes the size."""
    with pytest.raises(ValueError, match="would change the size"):
        RaftConvGRU(4, 6, kernel)
    with pytest.raises(Refused) as refused:
        registry.model("raft-conv-gru", {"kernel": kernel})
    assert refused.value.code == "bad-option" and "kernel" in refused.value.where


def test_inputs_of_unknown_number() -> None:
    """The document's ``forward(att, h, *x)`` cannot be captured with names; every unit here names its inputs."""
    kinds = inspect.getmembers(gru, inspect.isclass)
    units = [kind for name, kind in kinds if issubclass(kind, nn.Module) and not name.startswith("_")]
    assert len(units) >= 5
    for kind in (*units, RaftStereoUpdate, SelectiveUpdate):
        given = inspect.signature(kind.forward).parameters.values()
        assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in given), kind


def updated(layers: int) -> tuple[list[Tensor], list[Tensor]]:
    """States before and after one update of a network of so many levels."""
    block = seeded(SelectiveUpdate(layers, 4))
    sizes = [16 >> level for level in range(layers)]
    hidden, context = ([drawn(1, 128, n, n, seed=seed + n) for n in sizes] for seed in (0, 100))
    attention = [drawn(1, 1, n, n, low=0.0) for n in sizes]
    following = block(hidden, block.prepare(context), attention, drawn(1, 36, 16, 16), drawn(1, 1, 16, 16))
    return hidden, following


@torch.no_grad()
def test_a_list_of_states_that_is_written_to() -> None:
    """The published update assigns into the list that it is given; here that stays as it was."""
    hidden, following = updated(3)
    assert all(torch.equal(h, drawn(1, 128, n, n, seed=n)) for h, n in zip(hidden, (16, 8, 4), strict=True))
    assert following is not hidden and not any(torch.equal(a, b) for a, b in zip(following, hidden, strict=True))


@torch.no_grad()
def test_a_list_of_states_that_raft_stereo_writes_to() -> None:
    block, sizes = seeded(RaftStereoUpdate(3, 4)), (16, 8, 4)
    hidden = [drawn(1, 128, n, n, seed=n) for n in sizes]
    context = [[drawn(1, 128, n, n, seed=n + gate) for gate in range(3)] for n in sizes]
    kept, given = list(hidden), (drawn(1, 36, 16, 16), drawn(1, 2, 16, 16))
    for following in (block(hidden, context, *given), block.slow(hidden, context), block.slow(hidden, context, 2)):
        assert following is not hidden and all(a is b for a, b in zip(hidden, kept, strict=True))
        assert all(torch.equal(h, drawn(1, 128, n, n, seed=n)) for h, n in zip(hidden, sizes, strict=True))


@torch.no_grad()
def test_no_iteration_is_not_the_default_number() -> None:
    network = meta("selective-raft", iterations=2)
    with torch.device("meta"), pytest.raises(ValueError, match="0 iterations"):
        network(torch.empty(1, 3, 64, 64), torch.empty(1, 3, 64, 64), iterations=0)


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_finest_unit_that_a_single_level_never_updates(layers: int) -> None:
    """The published update of the finest state stands under ``if n_gru_layers > 1``, with no else."""
    hidden, following = updated(layers)
    assert len(following) == layers
    assert all((a - b).abs().mean() > 0.01 for a, b in zip(following, hidden, strict=True))


@torch.no_grad()
def test_a_width_of_32() -> None:
    """The published sampler divides by the width less one: NaN where the coarsest likenesses have one column.

    The definition begins at 64, and says why; the lookup that is deployed divides by nothing.
    """
    left, right = drawn(1, 8, 4, 8), drawn(1, 8, 4, 8, seed=1)
    pyramid, position = correlation_pyramid(left, right), columns(left).expand(1, 1, 4, 8)
    assert pyramid[-1].shape[-1] == 1
    assert torch.isnan(GridLookup()(pyramid, position)).any()
    assert torch.isfinite(GatherLookup()(pyramid, position)).all()
    images = [image.float() for image in pair(32, 32)]
    assert torch.isnan(built("selective-raft", iterations=1).float()(*images)[1]).any()
    for name in ("selective-raft", "selective-raft-loop", "raft-stereo"):
        with pytest.raises(Refused) as refused:
            registry.model(name).with_dims(["W=32"])
        assert refused.value.code == "bad-dim" and ONE_COLUMN in refused.value.why
        with pytest.raises(Refused) as refused:
            registry.model(name, {"max_width": 32})
        assert refused.value.code == "bad-option" and ONE_COLUMN in refused.value.why
    real_time = registry.model("raft-stereo", {"variant": "realtime"})
    assert next(dim for dim in real_time.dims if dim.name == "W").min == 128
    with pytest.raises(Refused) as refused:
        real_time.with_dims(["W=96"])
    assert f"below 128 {ONE_COLUMN}" in refused.value.why


def test_a_height_of_32_is_refused_for_another_reason() -> None:
    with pytest.raises(Refused) as refused:
        registry.model("selective-raft").with_dims(["H=32"])
    assert "untested" in refused.value.why and ONE_COLUMN not in refused.value.why
