"""A device: the base install and the runtimes, without PyTorch and ONNX. What was exported elsewhere works there."""

from __future__ import annotations

import json
import subprocess
import wave
from pathlib import Path

import numpy as np
import pytest

from tests.cli_fakes.tool import CHECKPOINT, NOISY, ROOT, environment, exported, run
from tests.device.there import PYTHON, there

ABSENT = ("torch", "onnx", "onnxscript", "onnxsim")


def test_it_is_a_device() -> None:
    code = f"import importlib.util as u; print([n for n in {ABSENT} if u.find_spec(n)], u.find_spec('openvino') and 1)"
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert done.stdout.split("\n")[0] == "[] 1", done


@pytest.fixture(scope="module")
def gtcrn() -> Path:
    """The published model where it is at hand, seeded weights elsewhere; short, so that it is made soon."""
    weights = ("--checkpoint", str(CHECKPOINT)) if CHECKPOINT.exists() else ()
    return exported("gtcrn", "openvino", "mobile", options=("--no-profile", "--dim", "T=2:63:700", *weights))


@pytest.mark.parametrize("target", ["openvino", "mobile"])
def test_tiny_is_verified_there(tmp_path: Path, target: str) -> None:
    bundle = exported("tiny", "openvino", "mobile")
    found = there("verify", bundle, "--target", target, "--json", cwd=tmp_path)
    assert found.code == 0, found
    (hop,) = found.json["hops"]
    assert hop["verdict"] == "PASS" and hop["precision"]["ran"] == "fp32"


@pytest.mark.slow
def test_gtcrn_is_verified_there(gtcrn: Path, tmp_path: Path) -> None:
    found = there("verify", gtcrn, "--json", cwd=tmp_path)
    assert found.code == 0 and found.json["verdict"] == "PASS", found
    assert {hop["target"] for hop in found.json["hops"]} == {"openvino", "mobile"}
    here = run("verify", gtcrn, "--json", cwd=tmp_path)
    assert [r["verdict"] for r in here.json["results"]] == [r["verdict"] for r in found.json["results"]]


def test_a_profile_there_has_no_eager_and_no_ratio_to_it(tmp_path: Path) -> None:
    bundle = exported("tiny", "openvino", "mobile")
    found = there("profile", bundle, "--seconds", 1, "--json", cwd=tmp_path)
    assert found.code == 0, found
    subjects = {s["name"]: s for s in found.json["subjects"]}
    assert set(subjects) == {"eager", "openvino", "mobile"}
    assert subjects["eager"]["verdict"] == "SKIPPED" and subjects["eager"]["reason"] == "torch absent"
    assert subjects["eager"]["median_ms"] is None and subjects["openvino"]["median_ms"] > 0
    assert [{r["of"], r["to"]} for r in found.json["ratios"]] == [{"openvino", "mobile"}]
    plain = there("profile", bundle, "--seconds", 1, cwd=tmp_path)
    assert "SKIPPED: torch absent" in plain.out and "the time of eager" not in plain.out


@pytest.mark.skipif(not NOISY.exists(), reason="no recording at EXPORTER_DATA")
@pytest.mark.parametrize("target", ["openvino", "mobile"])
def test_a_recording_gives_there_what_it_gives_here(gtcrn: Path, tmp_path: Path, target: str) -> None:
    sounds = []
    for where, command in (("here", run), ("there", there)):
        output = tmp_path / f"{where}.wav"
        found = command("run", gtcrn, NOISY, "--target", target, "-o", output, cwd=tmp_path)
        assert found.code == 0, found
        with wave.open(str(output)) as file:
            assert file.getframerate() == 16000 and file.getnchannels() == 1
            sounds.append(np.frombuffer(file.readframes(file.getnframes()), "<i2"))
    assert np.array_equal(*sounds)
    assert np.abs(sounds[0].astype(int)).max() > 100, "not silence"


def test_looking_around_there(tmp_path: Path) -> None:
    bundle = exported("tiny", "openvino", "mobile")
    assert there("inspect", bundle, "--json", cwd=tmp_path).json["model"] == "tiny"
    listed = there("targets", "--json", cwd=tmp_path)
    able = {t["name"]: t["available"] for t in listed.json["targets"]}
    assert listed.code == 0 and able["openvino"] and able["mobile"] and not able["onnx-reference"]
    doctor = there("doctor", cwd=tmp_path)
    assert doctor.code == 3 and "torch is not installed" in doctor.out and "onnx-reference: onnx is not" in doctor.out


@pytest.mark.parametrize("words", [["models"], ["mobile", "gtcrn"], ["openvino", "tiny"]])
def test_what_needs_torch_says_so_there(tmp_path: Path, words: list[str]) -> None:
    """Nothing is wrong with the exporter there: something is missing, and the error says what."""
    found = there(*words, cwd=tmp_path)
    said = found.failed(json.loads(there(*words, "--json", cwd=tmp_path).out)["code"], 3)
    assert "torch" in said
    assert list(tmp_path.iterdir()) == []


def test_samples_need_a_reference_that_torch_computes(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.ones((5, 4), np.float32))
    bundle = exported("tiny", "openvino", "mobile")
    said = there("verify", bundle, "--samples", "in.npz", cwd=tmp_path).refused("samples-need-reference")
    assert "torch absent" in said


def test_the_runner_of_polygraphy_works_there(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np, exporter\n"
        "with exporter.open(sys.argv[1]).runner('openvino') as r:\n"
        "    print(r.infer({'x': np.ones((3, 4), np.float32)})['y'].shape, 'torch' in sys.modules)"
    )
    words = [str(PYTHON), "-c", code, str(exported("tiny", "openvino", "mobile"))]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), cwd=tmp_path, check=False)
    assert done.stdout.strip() == "(3, 3) False", done


def test_the_device_has_python_3_10_syntax() -> None:
    """Robots still run 3.10: what a device imports is parsed as 3.10 would."""
    import ast

    for path in sorted([*(ROOT / "exporter").rglob("*.py"), *(ROOT / "targets").rglob("*.py")]):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))
