"""A model of several graphs and a loop, from the command line: exported, used, verified, timed and run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from exporter.bundle import Bundle
from tests.cli_fakes.tool import exported, run

TARGETS = ("openvino", "mobile")


@pytest.fixture(scope="module")
def bundle() -> Path:
    return exported("tiny-loop", *TARGETS)


def test_every_graph_is_compiled_for_every_target(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    assert set(manifest.graphs) == {"begin", "again"}
    for info in manifest.targets.values():
        assert info.status == "compiled" and {role.partition(".")[0] for role in info.files} == {"begin", "again"}


def test_the_page_for_applications_has_a_loop_that_computes_the_model(bundle: Path, tmp_path: Path) -> None:
    """The program on the page is run as it stands, with a function per graph as an application would have it."""
    page = (bundle / "USE.md").read_text(encoding="utf-8")
    program = re.search(r"## Program.*?```python\n(.*?)```", page, re.DOTALL)
    assert program is not None and "for _ in range(rounds):" in program[1]
    for target in TARGETS:
        assert f"## {target}, fp32" in page and "the other graphs likewise" in page
    onnxruntime = pytest.importorskip("onnxruntime")
    files = Bundle.open(bundle).manifest.targets["mobile/fp32"].files

    def graph(name: str):
        session = onnxruntime.InferenceSession(str(bundle / files[f"{name}.onnx"]))
        takes, gives = ([v.name for v in side] for side in (session.get_inputs(), session.get_outputs()))
        return lambda values: dict(zip(gives, session.run(None, {n: values[n] for n in takes}), strict=True))

    x = np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4)
    code = program[1].replace("{'x': ...}", "{'x': x}")
    names = {"x": x, "rounds": 4, "begin": graph("begin"), "again": graph("again")}
    exec(code, names)
    np.savez(tmp_path / "in.npz", x=x)
    found = run("run", bundle, "--target", "mobile", "in.npz", "-o", "out.npz", "--dim", "rounds=4", cwd=tmp_path)
    assert found.code == 0, found
    np.testing.assert_allclose(names["result"]["h"], np.load(tmp_path / "out.npz")["h"], rtol=1e-6)


def test_it_is_verified_and_timed_as_one_model(bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "it.bundle")
    found = run("verify", copy, "--json", cwd=tmp_path)
    assert found.code == 0 and found.json["verdict"] == "PASS", found
    assert {hop["target"] for hop in found.json["hops"]} == set(TARGETS)
    timed = run("profile", copy, "--seconds", 1, "--json", cwd=tmp_path)
    assert timed.code == 0 and {s["name"] for s in timed.json["subjects"]} == {"eager", *TARGETS}, timed


def test_how_often_it_runs_decides_what_it_gives_and_has_a_range(bundle: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.ones((3, 4), np.float32))
    outputs = []
    for rounds in (1, 6):
        words = ("--target", "openvino", "in.npz", "-o", f"{rounds}.npz", "--dim", f"rounds={rounds}")
        assert run("run", bundle, *words, cwd=tmp_path).code == 0
        outputs.append(np.load(tmp_path / f"{rounds}.npz")["h"])
    assert not np.allclose(*outputs)
    run("run", bundle, *words[:5], "--dim", "rounds=7", cwd=tmp_path).refused("bad-dim")
