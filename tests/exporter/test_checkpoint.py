"""Checkpoints that are not what they seem: refused before anything of them is used, and nothing of them is run."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from exporter import checkpoint
from exporter.errors import ExporterError, Refused


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(64, 32)
        self.decoder = nn.Linear(32, 64)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return dict(Tiny().state_dict())


@pytest.fixture
def good(state: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "good.tar"
    torch.save(state, path)
    return path


def refused(path: Path, *codes: str) -> ExporterError:
    """The refusal; the module keeps every weight it had."""
    module = Tiny()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(Refused) as caught:
        checkpoint.load(module, path)
    error = caught.value
    assert error.code in codes and error.exit_code == 2
    assert error.what and error.why and error.next and (error.where or error.code == "missing-file"), error.as_json()
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    return error


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


# ---- accepted


@pytest.mark.parametrize("wrap", [None, "model", "params", "params_ema", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("kind", ["zip", "safetensors"])
def test_variants(state: dict[str, torch.Tensor], wrap: str | None, prefix: str, kind: str, tmp_path: Path) -> None:
    content: Any = {prefix + key: value for key, value in state.items()}
    path = tmp_path / "weights"
    if kind == "safetensors":
        if wrap:
            pytest.skip("NOT APPLICABLE: safetensors holds tensors alone, no wrapper")
        save_file(content, path)
    else:
        saved({wrap: OrderedDict(content), "epoch": 3} if wrap else content, path)
    module = Tiny()
    checkpoint.load(module, path)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_a_wrapper_in_a_wrapper(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    module = Tiny()
    checkpoint.load(module, saved({"model": {"state_dict": state}}, tmp_path / "w"))
    assert torch.equal(module.encoder.weight, state["encoder.weight"])


# ---- damaged


def test_missing(tmp_path: Path) -> None:
    refused(tmp_path / "nothing.pt", "missing-file")
    refused(tmp_path, "missing-file")


def test_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.pt"
    path.touch()
    refused(path, "bad-checkpoint")


@pytest.mark.parametrize("part", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("kind", ["zip", "safetensors"])
def test_truncated(state: dict[str, torch.Tensor], part: int, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "cut"
    if kind == "zip":
        saved(state, path)
    else:
        save_file(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * part // 10])
    refused(path, "bad-checkpoint")


def test_one_byte_less(good: Path) -> None:
    good.write_bytes(good.read_bytes()[:-1])
    refused(good, "bad-checkpoint")


def test_a_bit_flipped_in_any_record(good: Path) -> None:
    """A flipped bit in a tensor is a plausible number: only the checksum tells."""
    content = good.read_bytes()
    with zipfile.ZipFile(good) as archive:
        records = [(info.filename, info.header_offset, info.file_size) for info in archive.infolist() if info.file_size]
        places = []
        for info in archive.infolist():
            with archive.open(info) as record:
                data = record.read()
            if len(data) > 100:
                places.append(content.index(data[:64]) + len(data) // 2)
    assert len(places) >= 3, records
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 0x10
        good.write_bytes(bytes(flipped))
        refused(good, "bad-checkpoint")


def test_bits_flipped_anywhere_never_load_other_values(good: Path, state: dict[str, torch.Tensor]) -> None:
    content = good.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 61)):
        flipped = bytearray(content)
        flipped[place] ^= 0x01
        good.write_bytes(bytes(flipped))
        module = Tiny()
        try:
            checkpoint.load(module, good)
        except Refused:
            continue
        assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items()), place


def test_safetensors_damaged(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    content = path.read_bytes()
    for damaged in (
        b"\xff" * 8 + content[8:],  # a header of absurd length
        content[:8] + b"[" + content[9:],  # no JSON object
        content + b"more",  # bytes nobody accounts for
        content[:8] + content[8:].replace(b"F32", b"Q32", 1),  # no such type
        content[:8] + content[8:].replace(b'"data_offsets":[0,', b'"data_offsets":[4,', 1),
        b"not a checkpoint at all",
        b"\x00" * 100,
    ):
        path.write_bytes(damaged)
        refused(path, "bad-checkpoint")


def test_a_zip_that_lies(tmp_path: Path) -> None:
    path = tmp_path / "lies.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday.jpg", b"no model")
    refused(path, "bad-checkpoint")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02garbage")
        archive.writestr("archive/version", b"3")
    refused(path, "bad-checkpoint", "unsafe-checkpoint")
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes()[:40])
    refused(path, "bad-checkpoint")


def test_a_safetensors_name_on_a_pickle(good: Path) -> None:
    """It goes by content: the same rules hold whatever the name says."""
    lied = good.rename(good.with_suffix(".safetensors"))
    module = Tiny()
    checkpoint.load(module, lied)


# ---- hostile


class Payload:
    """What an attacker pickles: it runs a command when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("form", ["beside", "as-tensor", "alone", "bare-pickle", "legacy"])
def test_a_payload_does_not_run(form: str, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "payload.pt"
    payload = Payload(marker)
    content: Any = {"beside": {**state, "x": payload}, "as-tensor": {**state, "encoder.weight": payload}}.get(
        form, payload
    )
    if form == "bare-pickle":
        path.write_bytes(pickle.dumps(content))
    elif form == "legacy":
        buffer = io.BytesIO()
        torch.save({**state, "x": payload}, buffer, _use_new_zipfile_serialization=False)
        path.write_bytes(buffer.getvalue())
    else:
        saved(content, path)
    error = refused(path, "unsafe-checkpoint", "bad-checkpoint")
    if form in ("beside", "as-tensor", "alone"):
        assert error.code == "unsafe-checkpoint" and "state_dict" in error.next
    assert not marker.exists()


def test_a_payload_in_a_good_archive_does_not_run(good: Path, tmp_path: Path) -> None:
    """The archive reads, its checksums hold: only the unpickler stands between it and us."""
    marker = tmp_path / "ran"
    with zipfile.ZipFile(good) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(name for name in records if name.endswith("data.pkl"))
    records[name] = pickle.dumps(Payload(marker), protocol=2)
    with zipfile.ZipFile(good, "w", zipfile.ZIP_STORED) as archive:
        for record, data in records.items():
            archive.writestr(record, data)
    refused(good, "unsafe-checkpoint")
    assert not marker.exists()


# ---- of another model


def test_wrong_keys_name_the_nearest(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    state["encoder.wieght"] = state.pop("encoder.weight")
    error = refused(saved(state, tmp_path / "w"), "wrong-checkpoint")
    assert "1 missing: encoder.weight" in error.what
    assert "1 unexpected: encoder.wieght; nearest: encoder.weight" in error.what


def test_many_wrong_keys_are_counted(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    more = {f"encoder.weight{i}": torch.ones(1) for i in range(40)}
    error = refused(saved({**state, **more}, tmp_path / "w"), "wrong-checkpoint")
    assert "40 unexpected" in error.what and "and 35 more" in error.what and len(error.what) < 600


def test_the_checkpoint_of_another_model_is_called_that(tmp_path: Path) -> None:
    error = refused(saved({f"k{i}": torch.ones(1) for i in range(40)}, tmp_path / "w"), "wrong-checkpoint")
    assert "none of the 4 keys of this model (encoder.weight, " in error.what and "40 others (k0, " in error.what
    assert "and 35 more" in error.what and "nearest" not in error.what


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.T.contiguous(), "(64, 32) torch.float32 instead of (32, 64)"),
        (lambda w: w[:1], "(1, 64)"),  # would broadcast
        (lambda w: w.half(), "torch.float16 instead of (32, 64) torch.float32"),
        (lambda w: w.double(), "torch.float64"),
    ],
)
def test_wrong_shapes_and_types(change: Any, words: str, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    state["encoder.weight"] = change(state["encoder.weight"])
    error = refused(saved(state, tmp_path / "w"), "wrong-checkpoint")
    assert "encoder.weight" in error.what and words in error.what


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(value: float, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    state["decoder.weight"] = state["decoder.weight"].clone()
    state["decoder.weight"][2, 3] = value
    error = refused(saved(state, tmp_path / "w"), "nan-weights")
    assert "decoder.weight" in error.what and "1 values" in error.what and "(2, 3)" in error.what


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, {"model": {}}, {"model": {"x": 1}}, 5])
def test_no_state_dict(content: Any, tmp_path: Path) -> None:
    refused(saved(content, tmp_path / "w"), "bad-checkpoint", "wrong-checkpoint")


# ---- the published one


def test_the_published_checkpoint_loads_strictly(gtcrn_checkpoint: Path) -> None:
    from exporter import define, registry
    from exporter.graph import sha256

    state = checkpoint.read(gtcrn_checkpoint)
    assert len(state) == 271
    for name in ("gtcrn", "gtcrn-stream"):
        definition = registry.model(name)
        assert definition.checkpoint is not None and definition.checkpoint.sha256 == sha256(gtcrn_checkpoint)
        module, weights = define.weighted(definition, str(gtcrn_checkpoint), 0)
        assert set(module.state_dict()) == set(state)
        assert weights.kind == "checkpoint" and weights.licence == "MIT" and "github.com" in weights.source
