"""A precision written into the graph, from the command line: prepared here, finished there, judged as such."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from exporter.bundle import Bundle, read_tensors
from tests.cli_fakes.tool import run

THERE = {"FAKES_RUNTIME": "present"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that was made where the runtime is not."""
    bundle = tmp_path_factory.mktemp("prepared") / "tiny.bundle"
    made = run("fake-halves", "tiny", "--precision", "fp16", "-o", bundle, cached=True)
    assert made.code == 3, made
    return bundle


def test_it_is_prepared_without_the_runtime(prepared: Path) -> None:
    manifest = Bundle.open(prepared).manifest
    info = manifest.targets["fake-halves/fp16"]
    assert info.status == "incomplete" and set(info.graphs) == {"model"}
    assert info.next.endswith("exporter compile BUNDLE --target fake-halves --precision fp16")
    graph = onnx.load(str(prepared / info.graphs["model"])).graph
    assert {tensor.data_type for tensor in graph.initializer} == {onnx.TensorProto.FLOAT16}
    yardstick = read_tensors(prepared / manifest.yardsticks["fp16"])
    assert set(yardstick) == {f"noise/{case.name}/y" for case in manifest.cases}
    own = {case.name: read_tensors(prepared / case.file)["noise/y"] for case in manifest.cases}
    assert all(yardstick[f"noise/{name}/y"][0] > 100 * noise[0] for name, noise in own.items())


def test_the_lowered_graph_has_a_hop_of_its_own(tmp_path: Path) -> None:
    made = run("fake-halves", "tiny", "--precision", "fp16", "--no-profile", "--json", cwd=tmp_path, cached=True)
    assert made.code == 3, made
    hops = {hop["hop"]: hop for hop in made.json["verify"]["hops"]}
    assert list(hops) == ["traced", "simplified", "lowered", "compiled"]
    lowered = hops["lowered"]
    assert lowered["verdict"] == "PASS" and lowered["facts"]["kept"] == {}
    assert lowered["precision"] == {"asked": "fp16", "stored": "fp16", "ran": "fp16, emulated"}
    assert lowered["worst"]["noise"] > 1e-4 and lowered["worst"]["amplification"] <= 2
    said = " ".join(
        run("fake-halves", "tiny", "--precision", "fp16", "--no-profile", cwd=tmp_path, cached=True).out.split()
    )
    assert "lowered" in said and "fp16, emulated" in said


def test_it_is_finished_and_judged_where_the_runtime_is(prepared: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(prepared, tmp_path / "it.bundle")
    words = ("compile", bundle, "--target", "fake-halves", "--precision", "fp16", "--json")
    made = run(*words, cwd=tmp_path, env=THERE, cached=True)
    assert made.code == 0, made
    (hop,) = made.json["verify"]["hops"]
    assert hop["precision"] == {"asked": "fp16", "stored": "fp16", "ran": "fp16"}
    assert hop["worst"]["noise"] > 1e-4, "it is judged by eager in that precision"
    verified = run("verify", bundle, "--json", cwd=tmp_path, env=THERE)
    assert verified.code == 0 and verified.json["verdict"] == "PASS", verified
    np.savez(tmp_path / "mine.npz", x=np.ones((5, 4), np.float32))
    with_sample = run("verify", bundle, "--samples", "mine.npz", "--json", cwd=tmp_path, env=THERE)
    assert with_sample.code == 0, with_sample
    assert "sample-mine" in {result["case"] for result in with_sample.json["results"]}


def test_int8_is_finished_from_the_calibration_inputs_that_the_bundle_keeps(tmp_path: Path) -> None:
    """Scales are taken where the runtime is; what they are taken from, and what may not be, was decided here."""
    for folder, seeds in (("calibration", (1, 2, 3)), ("samples", (4, 5))):
        (tmp_path / folder).mkdir()
        for seed in seeds:
            values = np.random.default_rng(seed).normal(size=(5, 4)).astype(np.float32)
            np.savez(tmp_path / folder / f"{folder}-{seed}.npz", x=values)
    words = ("fake-scales", "tiny", "--precision", "int8", "--calibration", "calibration")
    assert run(*words, "-o", "it.bundle", cwd=tmp_path, cached=True).code == 3
    waiting = Bundle.open(tmp_path / "it.bundle").manifest.targets["fake-scales/int8"]
    assert waiting.calibration is not None and waiting.calibration.real and len(waiting.calibration.files) == 3
    words = ("compile", "it.bundle", "--target", "fake-scales", "--precision", "int8", "--json")
    made = run(*words, cwd=tmp_path, env=THERE, cached=True)
    assert made.code == 0, made
    cases = {result["case"] for result in made.json["verify"]["results"]}
    assert all(case.startswith("normal") for case in cases), "no real input is a case"
    words = ("verify", "it.bundle", "--json", "--samples")
    judged = run(*words, "samples", cwd=tmp_path, env=THERE)
    assert judged.code == 0, judged
    (hop,) = judged.json["hops"]
    assert hop["precision"] == {"asked": "int8", "stored": "int8", "ran": "fp32+int8"}
    assert {r["case"] for r in judged.json["results"]} == {"sample-samples-4", "sample-samples-5"}
    said = run(*words[:2], "--samples", "calibration", cwd=tmp_path, env=THERE).refused("bad-calibration")
    assert "calibration" in said


@pytest.mark.slow
def test_a_precision_that_the_runtime_ignored_is_a_fail(tmp_path: Path) -> None:
    words = ("fake-halves-ignored", "tiny", "--precision", "fp16", "--no-profile")
    made = run(*words, cwd=tmp_path, env=THERE, cached=True)
    assert made.code == 1 and "asked for fp16, fp32 ran" in made.out


def test_what_no_export_lowered_is_not_compiled(prepared: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(prepared, tmp_path / "it.bundle")
    words = ("compile", bundle, "--target", "fake-halves-ignored", "--precision", "fp16")
    said = run(*words, cwd=tmp_path, env=THERE).refused("not-lowered")
    assert f"exporter fake-halves-ignored tiny -o {bundle} --precision fp16" in said


@pytest.mark.slow
def test_other_cases_bring_another_yardstick(tmp_path: Path) -> None:
    """A second export with samples of its own: what the bundle held is judged on them too."""
    first = run("fake-halves", "tiny", "--precision", "fp16", "--no-profile", cwd=tmp_path, env=THERE, cached=True)
    assert first.code == 0, first
    np.savez(tmp_path / "mine.npz", x=np.ones((5, 4), np.float32))
    second = run("fake-good", "tiny", "--samples", "mine.npz", "--no-profile", cwd=tmp_path)
    assert second.code == 0, second
    manifest = Bundle.open(tmp_path / "tiny.bundle").manifest
    assert "noise/sample-mine/y" in read_tensors(tmp_path / "tiny.bundle" / manifest.yardsticks["fp16"])
    again = run("verify", "tiny.bundle", "--json", cwd=tmp_path, env=THERE)
    assert again.code == 0, again


@pytest.mark.slow
def test_the_page_for_applications_names_the_file_of_the_precision(tmp_path: Path) -> None:
    run("fake-halves", "tiny", "--precision", "fp16", "--no-profile", cwd=tmp_path, env=THERE, cached=True)
    assert re.search(r"^## fake-halves, fp16", (tmp_path / "tiny.bundle" / "USE.md").read_text(), re.MULTILINE)
