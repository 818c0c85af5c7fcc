"""What the document's chapter on skips and fusion gets wrong, each shown right here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from exporter import define, registry
from exporter.define import seed_weights
from model_defs import speech_fusion
from model_defs.gtcrn.network import DILATIONS, GTCRN
from model_defs.speech_fusion.blends import Attention
from model_defs.speech_fusion.skips import BANDS, DenseSkips, FusionDecoder, MultiscalePreservation

ROOT = Path(__file__).resolve().parents[3]
OURS = [name for name in registry.model_names() if registry.model(name).family == "speech_fusion"]


def seeded(module: nn.Module) -> nn.Module:
    seed_weights(module, 0)
    return module.eval()


@torch.no_grad()
def test_skips_said_to_be_hybrid() -> None:
    """The document's GTCRN concatenates, attends and adds; every one of its five skips is an addition."""
    network = seeded(GTCRN())
    layers = network.decoder.de_convs
    given: dict[int, torch.Tensor] = {}
    made: dict[int, torch.Tensor] = {}

    def note(index: int, _: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        given[index], made[index] = inputs[0], output

    for index, layer in enumerate(layers):
        layer.register_forward_hook(partial(note, index))
    skips = network.encoder(torch.randn(1, 9, 6, 129))
    x = torch.randn(1, 16, 6, 33)
    network.decoder(x, skips)
    assert len(layers) == len(skips) == 5
    for index in range(5):
        before = x if index == 0 else made[index - 1]
        torch.testing.assert_close(given[index], before + skips[4 - index])


def test_channels_that_the_parameters_could_not_hold() -> None:
    """One of the document's fusions alone is larger than the whole of GTCRN."""
    fusion = FusionDecoder("concat").fusion3
    assert fusion is not None
    assert sum(p.numel() for p in fusion.parameters()) == 49_280
    assert sum(p.numel() for p in GTCRN().parameters()) == 48_245


@torch.no_grad()
def test_features_kept_on_the_module() -> None:
    """The document's dense skips remember the last batch; handed over, two signals do not meet, whatever their size."""
    module = seeded(DenseSkips(4))
    before = set(vars(module))
    first, second = torch.randn(1, 4, 5, 129), torch.randn(2, 4, 9, 129)
    features = module.encode(first)
    wanted = module.decode(features[-1], features)
    module.encode(second)
    assert torch.equal(module.decode(features[-1], features), wanted)
    assert torch.equal(module(first), wanted) and module(second).shape == second.shape
    assert set(vars(module)) == before


def test_layers_that_are_never_defined() -> None:
    """The document calls encoder1 to decoder3, DecoderBlock and the extractors of scales; all of them exist."""
    dense, scales, decoder = DenseSkips(4), MultiscalePreservation(4), FusionDecoder("concat")
    for module, names in (
        (dense, ("encoder1", "encoder2", "encoder3", "decoder1", "decoder2", "decoder3")),
        (scales, ("micro", "meso", "macro")),
        (decoder, ("decoder1", "decoder2", "decoder3", "fusion1", "fusion2", "fusion3")),
    ):
        assert all(sum(p.numel() for p in getattr(module, name).parameters()) for name in names)


@torch.no_grad()
@pytest.mark.parametrize(("part", "frames"), [("micro", 1), ("meso", 3), ("macro", 13)])
def test_scales_see_what_the_document_gives_them(part: str, frames: int) -> None:
    """One frame, three (48 ms), thirteen (208 ms), and none to come."""
    module, order = seeded(MultiscalePreservation(2)), ("input", "micro", "meso", "macro")
    x = torch.randn(1, 2, 30, 33)
    changed = x.clone()
    changed[:, :, 10] += 1.0
    difference = (module(changed) - module(x)).unflatten(1, (4, 2))[:, order.index(part)]
    seen = difference.abs().sum((0, 1, 3)).nonzero().flatten().tolist()
    assert min(seen) == 10 and max(seen) == 10 + frames - 1


def test_attention_as_a_free_function() -> None:
    """The document's function reads ``self.attention_conv``, and its class calls a method it has not."""
    module = Attention(4)
    assert [name for name, _ in module.named_parameters()] == ["attention_conv.weight", "attention_conv.bias"]
    assert registry.model("fusion-hybrid", {"level": "middle"}).build()(*torch.randn(2, 1, 16, 3, 33)).shape[1] == 16


@torch.no_grad()
def test_decoder_arithmetic_that_does_not_add_up() -> None:
    """The listing's convolutions take 384, 192 and 96 channels: features of 256, 128 and 64, and not the comments'."""
    module = seeded(FusionDecoder("concat"))
    for fusion, channels in ((module.fusion3, 384), (module.fusion2, 192), (module.fusion1, 96)):
        assert fusion is not None and fusion.after is not None and fusion.after.in_channels == channels
    widths = dict(zip((64, 128, 256), BANDS, strict=False))
    features = [torch.randn(1, channels, 3, bands) for channels, bands in widths.items()]
    bottleneck = torch.randn(1, 256, 3, BANDS[3])
    assert module(bottleneck, *features).shape == (1, 32, 3, 129)
    with pytest.raises(RuntimeError):
        module(bottleneck, features[0], features[1], torch.randn(1, 128, 3, 33))


@torch.no_grad()
@pytest.mark.parametrize("name", OURS)
def test_alignment_that_resizes_time(name: str) -> None:
    """The document's alignment interpolates frames with later ones; here nothing ahead of a frame is ever seen."""
    definition = registry.model(name).with_dims(["T=20"])
    module = define.weighted(definition, None, 0)[0]
    given = [torch.randn(tensor.sized({"T": 20})) for tensor in definition.inputs]
    changed = [x.clone() for x in given]
    for x in changed:
        x[:, :, 12:] += 1.0
    wanted, found = module(*given), module(*changed)
    assert torch.equal(found[:, :, :12], wanted[:, :, :12])
    assert not torch.allclose(found[:, :, 12:], wanted[:, :, 12:])


@torch.no_grad()
def test_alignment_that_nobody_needs() -> None:
    """129, 65 and 33 bands invert exactly: each of GTCRN's decoder layers gives the width its skip came from."""
    network, widths = seeded(GTCRN()), list[tuple[int, int]]()

    def note(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        widths.append((inputs[0].shape[-1], output.shape[-1]))

    for layer in (*network.encoder.en_convs, *network.decoder.de_convs):
        layer.register_forward_hook(note)
    network(torch.zeros(1, 257, 4, 2))
    assert widths == [(129, 65), (65, 33), *[(33, 33)] * 6, (33, 65), (65, 129)]


@pytest.mark.parametrize("name", OURS)
def test_generic_blocks_labelled_as_gtcrn(name: str) -> None:
    """Each says whose it is, and that it is not GTCRN's; only of the addition GTCRN's is said, and truly."""
    said = str(getattr(speech_fusion, name.replace("-", "_")).__doc__).split("\n")[0]
    source = registry.model(name).source
    assert "The document's" in said and "the document's" in source
    denied = "not GTCRN's" in said and "not part of GTCRN" in source
    claimed = "GTCRN's own" in said and "GTCRN's own five skips are this plain addition" in source
    assert (denied, claimed) == ((False, True) if name == "fusion-add" else (True, False))


FIGURE = re.compile(r"(?<![\d.])(3\.42|16\.8)(?!\d)")
QUALITY = re.compile(r"PESQ|SI-?S[DN]R", re.IGNORECASE)


def test_quality_figures_without_a_source() -> None:
    """The document's PESQ of 3.42 and SI-SDR of 16.8 dB are nobody's measurement; published are 2.87 and 18.83."""
    assert repeated("a PESQ of 3.42.") and repeated("| SI-SDR |\n|---|\n| 16.8 dB |")
    assert not repeated("a PESQ of 13.42") and not repeated("3.42 ms\n\nPESQ")
    pages = {path: path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")}
    modules = {path: "\n\n".join(docstrings(path)) for path in (ROOT / "model_defs").rglob("*.py")}
    assert len(pages) > 5 and "fusion strategies" in modules[Path(speech_fusion.__file__)]
    assert [str(path) for path, text in pages.items() if repeated(text)] == []
    assert [str(path) for path, text in modules.items() if FIGURE.search(text)] == []


def repeated(page: str) -> bool:
    """Whether a paragraph speaks of a quality and has one of the figures: a latency may well be 3.42 ms."""
    return any(FIGURE.search(part) and QUALITY.search(part) for part in page.split("\n\n"))


def docstrings(path: Path) -> Iterator[str]:
    """Those of a file's module, classes and functions, and the texts under constants."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def test_memory_said_to_be_kept_selectively() -> None:
    """No checkpointing, no half precision: what GTCRN keeps of the past is 2 + 4 + 10 frames per stack, 256 ms."""
    past = [2 * dilation for dilation in DILATIONS]
    network = GTCRN()
    assert [block.past for block in network.encoder.en_convs[2:]] == past == [2, 4, 10]
    assert sum(past) * 16 == 256
