"""Products of eight bits on a processor that cuts off their sums."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from exporter.bundle import write_tensors
from exporter.graph import Graph
from exporter.parity import cases as planning
from exporter.parity.cases import Case
from targets import _processor
from targets._mobile.quantise import quantised
from tests.fakes.lab import Specimen, specimen

OLD = "processor\t: 0\nflags\t\t: fpu sse2 avx2 f16c\n"


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Specimen:
    return specimen("raft-conv-gru", tmp_path_factory.mktemp("processor"))


@pytest.mark.parametrize(("machine", "flags", "cuts"), [
    ("x86_64", "", True), ("AMD64", "", True), ("x86_64", " avx512_vnni", False), ("x86_64", " avx_vnni", False),
    ("aarch64", "", False),
])  # fmt: skip
def test_x86_without_vnni_cuts_sums_off(
    machine: str, flags: str, cuts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(OLD.rstrip("\n") + flags + "\n")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert _processor.saturates.__wrapped__(cpuinfo) is cuts


def test_a_system_that_does_not_tell_is_taken_for_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert not _processor.saturates.__wrapped__(tmp_path / "absent")


@pytest.mark.parametrize(("narrow", "largest"), [(True, 64), (False, 127)])
def test_narrow_weights_have_seven_bits(it: Specimen, narrow: bool, largest: int, tmp_path: Path) -> None:
    file = tmp_path / "0.safetensors"
    case = Case("calibration-0", "generated", "normal", it.definition.opt_sizes())
    write_tensors(file, planning.generated_inputs(it.definition, case))
    quantised(Graph(it.simplified), [str(file)], [], tmp_path / "q.onnx", narrow=narrow)
    weights = [
        numpy_helper.to_array(tensor).astype(int)
        for tensor in onnx.load(tmp_path / "q.onnx").graph.initializer
        if tensor.data_type == tensor.INT8 and tensor.dims
    ]
    assert max(np.abs(weight).max() for weight in weights if weight.size > 1) == largest
