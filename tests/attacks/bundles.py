"""Small bundles for tests: good ones to publish, and their manifests to spoil."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exporter.budget import Budget
from exporter.bundle import Bundle, editing
from exporter.manifest import (
    CalibrationInfo,
    CaseInfo,
    FileInfo,
    GraphFiles,
    Manifest,
    ModelInfo,
    PassRecord,
    TargetInfo,
    Weights,
    encode,
)
from exporter.spec import Dim, HostStep, State, Step, Stream, Tensor

DIGEST = "0123456789abcdef" * 4


def manifest(key: str = DIGEST, files: dict[str, FileInfo] | None = None, **names: str) -> Manifest:
    """A manifest that uses every field."""
    traced = names.get("traced", "graphs/traced.onnx")
    simplified = names.get("simplified", "graphs/simplified.onnx")
    case = names.get("case", "cases/opt.safetensors")
    artifact = names.get("artifact", "targets/some/fp32/model.bin")
    inputs = (Tensor("x", (1, "T", 2), "a signal", "float32", -1.0, 1.0), Tensor("h", (1, 4)))
    outputs = (Tensor("y", (1, "T", 2)), Tensor("h_next", (1, 4)))
    all_names = (traced, simplified, case, artifact)
    return Manifest(
        model=ModelInfo("tiny", "tiny", {"width": 4, "taps": [1, 2.5, None]}, "nowhere", "MIT", 10, ("si-sdr",)),
        weights=Weights("seeded", DIGEST, "seed 0", "none", 0),
        key=key,
        inputs=inputs,
        outputs=outputs,
        dims=(Dim("T", 1, 3, 9, 2),),
        state=(State("h", "h_next"),),
        stream=Stream("x", "y", 1, 7),
        before=(HostStep("stft", {"size": 512, "window": "hann"}),),
        after=(HostStep("istft"),),
        graphs={"step": GraphFiles(traced, simplified, inputs, outputs, (PassRecord("fold", "kept", "3 nodes less"),))},
        program=(Step("step", 1, (State("h", "h_next"),)),),
        cases=(CaseInfo("opt", "values", "normal", {"T": 3}, 1, case),),
        yardsticks={"fp32": case},  # any declared file will do
        targets={
            "some/fp32": TargetInfo(
                "some",
                "fp32",
                {"bin": artifact},
                ("bin",),
                {"version": "1"},
                "float32",
                2,
                ("-",),
                graphs={"step": simplified},
                options={"workspace": 1},
                calibration=CalibrationInfo("2 of data", DIGEST, (case,)),
                kept={"conv": "it errs"},
                left={"gru": "it has no int8"},
                budget=Budget(2.0, 30.0, {"psnr": 0.05}),
            ),
            "some/int8": TargetInfo("some", "int8", {}, (), {}, "int8", 0, (), "incomplete", "exporter compile ."),
        },
        reports={},
        onnx_tests=(artifact,),  # here too
        tools={"torch": "2.13.0"},
        files=files if files is not None else {name: FileInfo(DIGEST, 1) for name in all_names},
    )


def spoiled(change: Callable[[Any], object]) -> bytes:
    """The bytes of a good manifest after ``change`` had its way with the JSON."""
    value = json.loads(encode(manifest()))
    change(value)
    return json.dumps(value).encode()


def publish(path: Path, tag: str, shared: bytes = b"the same in every publication") -> Bundle:
    """Publishes a bundle whose files hold ``tag``; one file is the same whatever the tag."""
    with editing(path, f"publish {tag}") as draft:
        graph = draft.work / "traced.onnx"
        graph.write_bytes(f"traced {tag}".encode())
        artifact = draft.work / "model.bin"
        artifact.write_bytes(f"artifact {tag}".encode() * 100)
        names = {
            "traced": draft.add(graph, "graphs/traced.onnx"),
            "simplified": draft.write("graphs/simplified.onnx", f"simplified {tag}".encode()),
            "case": draft.write("cases/opt.safetensors", shared),
            "artifact": draft.add(artifact, "targets/some/fp32/model.bin"),
        }
        draft.derived("USE.md", f"how to use {tag}\n")
        return draft.commit(manifest(key_of(tag), {}, **names))


def key_of(tag: str) -> str:
    """A key that tells publications apart."""
    return tag.encode().hex().ljust(64, "0")


def contents(path: Path) -> dict[str, bytes]:
    """Every file below a folder, by name."""
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def assert_tidy(path: Path) -> None:
    """Nothing lies in a bundle's folder but what belongs to the bundle, and no empty folder."""
    declared = set(Bundle.open(path).manifest.files)
    assert set(contents(path)) - {"USE.md"} == declared | {"manifest.json"}
    assert all(any(p.iterdir()) for p in path.rglob("*") if p.is_dir())
