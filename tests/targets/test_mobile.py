"""What lies beside a mobile artifact, and that its ``.ort`` file suits any ARM."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exporter import registry
from exporter.target import Artifact
from tests.fakes.lab import specimen

# Domains of nodes that ONNX Runtime inserts for the memory layout of one kind of processor.
LAYOUT_DOMAINS = {"com.microsoft.nchwc", "com.ms.internal.nhwc"}


@pytest.fixture(scope="module", params=["gtcrn", "gtcrn-stream"])
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return specimen(request.param, tmp_path_factory.mktemp(request.param)).artifact("mobile")


def nodes_of(path: Path) -> list[tuple[str, str]]:
    """``(domain, operator)`` of every node of an ``.ort`` file, read from its flatbuffer."""
    pytest.importorskip("onnxruntime")
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py import fbs

    session = fbs.InferenceSession.InferenceSession.GetRootAs(path.read_bytes(), 0)
    graph = session.Model().Graph()
    nodes = [graph.Nodes(index) for index in range(graph.NodesLength())]
    return [((node.Domain() or b"").decode(), node.OpType().decode()) for node in nodes]


def test_the_ort_file_has_no_node_of_one_processors_layout(artifact: Artifact) -> None:
    nodes = nodes_of(artifact.files["ort"])
    assert len(nodes) > 50
    assert not {domain for domain, _ in nodes} & LAYOUT_DOMAINS
    assert not [kind for _, kind in nodes if "Reorder" in kind]


def test_the_looking_would_notice(artifact: Artifact, tmp_path: Path) -> None:
    """The same graph optimised for this processor has such nodes, where the processor has a layout of its own."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "here.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.log_severity_level = 4
    ort.InferenceSession(str(artifact.files["onnx"]), options, providers=["CPUExecutionProvider"])
    found = {domain for domain, _ in nodes_of(tmp_path / "here.ort")} & LAYOUT_DOMAINS
    if not found:
        pytest.skip("ONNX Runtime has no layout of its own for this processor")


def test_the_operators_of_a_reduced_build_are_listed(artifact: Artifact) -> None:
    listed = artifact.files["operators"].read_text()
    assert "GRU" in listed
    assert {kind for domain, kind in nodes_of(artifact.files["ort"]) if domain in ("", "ai.onnx")} <= set(
        re.findall(r"[A-Za-z]\w*", listed)
    )


def test_accelerators_are_estimated(artifact: Artifact) -> None:
    report = artifact.files["usability"].read_text()
    for accelerator in ("NNAPI", "CoreML NeuralNetwork", "CoreML MLProgram", "XNNPACK"):
        assert accelerator in report
    assert "of" in report.rpartition("XNNPACK:")[2]


def test_a_dynamic_dim_is_advised_about(artifact: Artifact) -> None:
    dynamic = any("dynamic dims T" in line for line in artifact.advice)
    assert dynamic == ("T" in "".join(artifact.advice))
    assert registry.target("mobile").rung == "portable"
