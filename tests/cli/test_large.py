"""A graph in two files, from the command line: every stage and target, with a size at which that is quick."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from exporter.bundle import Bundle
from tests.bench import large
from tests.cli_fakes.tool import run

SOME_IN_TWO = {"EXPORTER_EXTERNAL_FROM": str(1 << 16)}
TWO_FILES = {"EXPORTER_EXTERNAL_FROM": str(1 << 20)}
SIXTEEN = ("--set", "mebibytes=16", "--no-profile")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.bundle"
    for target in ("mobile", "openvino"):
        made = run(target, "large", *SIXTEEN, "-o", path, env=TWO_FILES)
        assert made.code == 0, made
    return path


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy.bundle"))


def test_every_graph_has_its_weights_beside_it(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    graph = manifest.graphs["model"]
    for name in (graph.traced, graph.simplified, manifest.targets["mobile/fp32"].files["onnx"]):
        assert manifest.files[name].bytes < 1 << 20 < 1 << 24 < manifest.files[f"{name}.data"].bytes
    assert graph.passes[0].verdict == "kept", "layouts of weights are folded, wherever those lie"


def test_a_phone_gets_both_files_and_is_told(bundle: Path) -> None:
    info = Bundle.open(bundle).manifest.targets["mobile/fp32"]
    assert info.forms == ("onnx",) and info.files["data"] == info.files["onnx"] + ".data"
    assert any("deploy both files" in line for line in info.advice)
    assert info.files["data"] in (bundle / "USE.md").read_text(encoding="utf-8")


def test_a_moved_bundle_is_verified_timed_and_run(copy: Path, tmp_path: Path) -> None:
    found = run("verify", copy, "--json", cwd=tmp_path, env=TWO_FILES)
    assert found.code == 0 and found.json["verdict"] == "PASS", found
    timed = run("profile", copy, "--seconds", 1, "--json", cwd=tmp_path, env=TWO_FILES)
    sizes = {subject["name"]: subject["bytes"] for subject in timed.json["subjects"] if subject["name"] != "eager"}
    assert set(sizes) == {"mobile", "openvino"} and all(size > 1 << 24 for size in sizes.values()), sizes
    np.savez(tmp_path / "in.npz", x=np.ones((1, 4, 2048), np.float32))
    outputs = []
    for target in sizes:
        done = run("run", copy, "--target", target, "in.npz", "-o", f"{target}.npz", cwd=tmp_path, env=TWO_FILES)
        assert done.code == 0, done
        outputs.append(np.load(tmp_path / f"{target}.npz")["y"])
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)


def test_other_weights_are_not_run(copy: Path, tmp_path: Path) -> None:
    data = copy / Bundle.open(copy).manifest.targets["mobile/fp32"].files["data"]
    with data.open("r+b") as file:
        file.seek(1 << 22)
        file.write(b"\x00")
    run("verify", copy, "--target", "mobile", cwd=tmp_path).refused("digest-mismatch")
    data.unlink()
    run("verify", copy, "--target", "mobile", cwd=tmp_path).refused("missing-file")


@pytest.mark.parametrize(
    ("target", "precision"),
    [
        pytest.param("mobile", "fp16"),
        pytest.param("mobile", "int8", marks=pytest.mark.slow),
        pytest.param("openvino", "bf16", marks=pytest.mark.slow),
        pytest.param("openvino", "int8", marks=pytest.mark.slow),
        pytest.param("tensorrt", "fp16"),
        pytest.param("tensorrt", "int8"),
        pytest.param("tensorrt", "bf16", marks=pytest.mark.slow),
        pytest.param("onnx-reference", "fp32"),
    ],
)
def test_every_precision_is_written_and_passes(target: str, precision: str, copy: Path, tmp_path: Path) -> None:
    words = (target, "large", *SIXTEEN, "-o", copy, "--precision", precision, "--json")
    made = run(*words, cwd=tmp_path, env=TWO_FILES)
    absent = target == "tensorrt"
    if precision == "bf16" and made.code == 2:
        pytest.skip("NO BF16: this processor has none")
    assert made.code == (3 if absent else 0), made
    verdicts = {hop["hop"]: hop["verdict"] for hop in made.json["verify"]["hops"]}
    assert verdicts["compiled"] == ("SKIPPED" if absent else "PASS")
    info = Bundle.open(copy).manifest.targets[f"{target}/{precision}"]
    graphs = [file for file in (*info.graphs.values(), *info.files.values()) if file.endswith(".onnx")]
    declared = Bundle.open(copy).manifest.files
    assert all(f"{graph}.data" in declared for graph in graphs)
    assert "lowered" not in verdicts or (graphs and verdicts["lowered"] == "PASS")


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two graphs, of which the one that repeats has its weights beside it and the other has not."""
    path = tmp_path_factory.mktemp("large") / "several.bundle"
    for words in (("mobile",), ("openvino",), ("tensorrt", "--precision", "fp16"), ("mobile", "--precision", "int8")):
        made = run(*words, "tiny-loop", "--set", "width=512", "--no-profile", "-o", path, env=SOME_IN_TWO)
        assert made.code == (3 if "tensorrt" in words else 0), made
    return path


@pytest.mark.slow
def test_of_several_graphs_some_have_weights_beside_them(several: Path) -> None:
    manifest = Bundle.open(several).manifest
    beside = {name for name, graph in manifest.graphs.items() if f"{graph.simplified}.data" in manifest.files}
    assert beside == {"again"}
    for precision in ("fp32", "int8"):
        info = manifest.targets[f"mobile/{precision}"]
        assert info.forms == ("onnx",), "a form that not every graph has is none"
        assert {"begin.onnx", "again.onnx", "again.data"} <= set(info.files) and "begin.ort" not in info.files
    lines = " ".join(manifest.targets["tensorrt/fp16"].advice)
    assert "--saveEngine=begin.engine" in lines and "--saveEngine=again.engine" in lines, lines


@pytest.mark.slow
def test_several_graphs_are_verified_and_run_elsewhere(several: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(several, tmp_path / "moved.bundle")
    found = run("verify", copy, "--json", cwd=tmp_path)
    verdicts = {(hop["target"], hop["precision"]["asked"]): hop["verdict"] for hop in found.json["hops"]}
    compiled = {key: verdict for key, verdict in verdicts.items() if key[0] != "tensorrt"}
    assert set(compiled) >= {("mobile", "fp32"), ("mobile", "int8"), ("openvino", "fp32")}, verdicts
    assert set(compiled.values()) == {"PASS"}, found
    np.savez(tmp_path / "in.npz", x=np.ones((3, 4), np.float32))
    outputs = []
    for target in ("mobile", "openvino"):
        words = ("--target", f"{target}/fp32", "in.npz", "-o", f"{target}.npz", "--dim", "rounds=3")
        done = run("run", copy, *words, cwd=tmp_path)
        assert done.code == 0, done
        outputs.append(np.load(tmp_path / f"{target}.npz")["h"])
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def of_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an ONNX file with its weights beside it."""
    folder = tmp_path_factory.mktemp("large")
    words = large.graph(folder / "net.onnx", 32)
    for target in ("mobile", "openvino", "onnx-reference"):
        made = run(target, *words, "--no-profile", "-o", folder / "net.bundle", env=TWO_FILES)
        assert made.code == 0, made
    return folder


def test_an_onnx_file_in_two_is_a_model(of_graph: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(of_graph / "net.bundle", tmp_path / "moved.bundle")
    manifest = Bundle.open(copy).manifest
    for graph in (manifest.graphs["model"].traced, manifest.targets["mobile/fp32"].files["onnx"]):
        assert manifest.files[graph].bytes < 1 << 20 < 1 << 25 <= manifest.files[f"{graph}.data"].bytes
    assert manifest.model.parameters == 2 * 2048 * 2048 + 1
    found = run("verify", copy, "--json", cwd=tmp_path)
    assert found.code == 0 and found.json["verdict"] == "PASS", found
    np.savez(tmp_path / "in.npz", h0=np.ones((3, 2048), np.float32))
    done = run("run", copy, "--target", "openvino", "in.npz", "-o", "out.npz", cwd=tmp_path)
    assert done.code == 0 and np.load(tmp_path / "out.npz")["h2"].shape == (3, 2048), done


def test_an_onnx_file_without_its_data_is_refused(of_graph: Path, tmp_path: Path) -> None:
    shutil.copy(of_graph / "net.onnx", tmp_path)
    made = run("mobile", "net.onnx", "--dim", "T=2:8:9", "-o", "x.bundle", cwd=tmp_path, env=TWO_FILES)
    made.refused("bad-external-data")
    assert not (tmp_path / "x.bundle").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["module", "graph"])
def test_gibibytes_go_through_in_bounded_memory(kind: str, tmp_path: Path) -> None:
    if reason := large.missing(tmp_path):
        pytest.skip(f"NO ROOM: {reason}")
    size = large.MEBIBYTES if kind == "module" else large.GRAPH_MEBIBYTES
    model = large.module(size) if kind == "module" else large.graph(tmp_path / "net.onnx", size)
    for target, stages in large.exported(tmp_path, size, model):
        print(target, {stage: round(times, 2) for stage, times in stages.items()})
        over = {stage: times for stage, times in stages.items() if times > large.bar_of(stage)}
        assert not over, (target, stages)
        assert any(stage.startswith(f"verify {target}") for stage in stages)
    assert [name for name in os.listdir(tmp_path) if not name.startswith("net.onnx")] == []
