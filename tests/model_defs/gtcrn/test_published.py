"""``gtcrn-stream --set signature=published``: a drop-in for programs written for the authors' streaming graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from exporter import define, host, registry, trace
from exporter.errors import Refused
from exporter.graph import sha256
from exporter.host import files
from exporter.verdict import Verdict
from model_defs.gtcrn.published import CACHES, METADATA, join_caches, split_caches
from model_defs.gtcrn.stream import STATES
from tests.model_defs.restoration.specimens import specimen

FRAMES = 120


@pytest.fixture(scope="module")
def peer(data: Path) -> ort.InferenceSession:
    """The graph that the authors published."""
    path = data / "gtcrn" / "peer_stream.onnx"
    if not path.is_file():
        pytest.skip(f"NO DATA: {path} is absent; set EXPORTER_DATA")
    return session(path)


def session(path: Path) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def traced(folder: Path, checkpoint: Path | None = None) -> Path:
    definition = registry.model("gtcrn-stream", {"signature": "published"})
    if checkpoint is not None:
        assert definition.checkpoint is not None and sha256(checkpoint) == definition.checkpoint.sha256
    module, _ = define.weighted(definition, checkpoint and str(checkpoint), 0)
    assert definition.deploy is not None
    return trace.trace(definition, definition.deploy(module), folder / "published.onnx").path


def interface(of: ort.InferenceSession) -> list[tuple[str, list[int], str]]:
    return [(value.name, value.shape, value.type) for value in (*of.get_inputs(), *of.get_outputs())]


def enhanced(of: ort.InferenceSession, frame: np.ndarray, caches: list[np.ndarray]) -> list[Any]:
    return of.run(None, {"mix": frame, **{c.input: x for c, x in zip(CACHES, caches, strict=True)}})


def test_it_is_the_published_graph_frame_by_frame(
    peer: ort.InferenceSession, data: Path, gtcrn_checkpoint: Path, tmp_path: Path
) -> None:
    """Same names, shapes, types and order; on a recording the same spectra and the same caches, and either takes over
    from the other."""
    ours = session(traced(tmp_path, gtcrn_checkpoint))
    assert interface(ours) == interface(peer)
    before = registry.model("gtcrn-stream", {"signature": "published"}).before
    spectrum = host.apply(before, files.read(data / "gtcrn" / "noisy.wav"))["mix"]
    zeros = [np.zeros(cache.shape, np.float32) for cache in CACHES]
    own, theirs, swapped = list(zeros), list(zeros), list(zeros)
    for index in range(FRAMES):
        frame = spectrum[:, :, index : index + 1]
        mine, wanted = enhanced(ours, frame, own), enhanced(peer, frame, theirs)
        either = enhanced((ours, peer)[index % 2], frame, swapped)
        for got in (mine, either):
            for found, right in zip(got, wanted, strict=True):
                # The caches reach 16, and float32 is as fine as the largest value it holds.
                bound = 2e-5 * max(1.0, np.abs(right).max())
                assert found.shape == right.shape and np.abs(found - right).max() < bound, index
        own, theirs, swapped = mine[1:], wanted[1:], either[1:]
    assert max(np.abs(cache).max() for cache in own) > 0.1


def test_caches_are_the_states_in_another_layout() -> None:
    caches = [torch.randn(cache.shape) for cache in CACHES]
    states = split_caches(*caches)
    assert [tuple(state.shape) for state in states] == [state.shape for state in STATES]
    assert all(torch.equal(a, b) for a, b in zip(join_caches(states), caches, strict=True))
    # The decoder meets dilation 5 first, and its past lies last.
    assert torch.equal(states[3], caches[0][1, :, :, 6:16])


def test_both_signatures_are_one_network() -> None:
    layers = define.weighted(registry.model("gtcrn-stream"), None, 0)[0].double()
    published = define.weighted(registry.model("gtcrn-stream", {"signature": "published"}), None, 0)[0].double()
    assert list(layers.state_dict()) == list(published.state_dict()) and len(layers.state_dict()) == 271
    mix, caches = torch.randn(1, 257, 1, 2).double(), [torch.randn(cache.shape).double() for cache in CACHES]
    with torch.no_grad():
        wanted, *states = layers(mix, *split_caches(*caches))
        found, *after = published(mix, *caches)
    assert torch.equal(found, wanted)
    assert all(torch.equal(a, b) for a, b in zip(after, join_caches(states), strict=True))


def metadata(path: Path) -> dict[str, str]:
    return dict(session(path).get_modelmeta().custom_metadata_map)


def test_the_graph_carries_the_metadata_that_sherpa_reads(tmp_path: Path) -> None:
    found = metadata(traced(tmp_path))
    assert {key: found.get(key) for key in METADATA} == METADATA
    assert found["model_type"] == "gtcrn" and found["window_type"] == "hann_sqrt"
    assert found["conv_cache_shape"] == "2,1,16,16,33" and found["tra_cache_shape"] == "2,3,1,1,16"
    assert found["inter_cache_shape"] == "2,1,33,16"


def test_what_is_deployed_carries_it_as_well(tmp_path: Path) -> None:
    """After simplification and compilation; a program on a phone reads the artifact and never the traced graph."""
    it = specimen("gtcrn-stream", tmp_path, signature="published")
    files_of_runtime = it.artifact("mobile").files
    for path in (it.simplified, files_of_runtime["onnx"], files_of_runtime["ort"]):
        found = metadata(path)
        assert {key: found.get(key) for key in METADATA} == METADATA, path.name


def test_the_authors_graph_carries_none(peer: ort.InferenceSession) -> None:
    """So the keys are those that sherpa-onnx asks for, and not copied from there."""
    assert peer.get_modelmeta().custom_metadata_map == {}


@pytest.mark.slow
def test_it_passes_on_both_targets(tmp_path: Path) -> None:
    it = specimen("gtcrn-stream", tmp_path, signature="published")
    for target in ("openvino", "mobile"):
        hop = it.verify(target)
        assert hop.verdict is Verdict.PASS, (target, hop.reason)


@pytest.mark.parametrize("signature", ["sherpa", "publish", "", True, 1, None, ["published"]])
def test_another_signature_is_refused(signature: Any) -> None:
    with pytest.raises(Refused) as caught:
        registry.model("gtcrn-stream", {"signature": signature})
    assert caught.value.code == "bad-option" and "published" in caught.value.why
