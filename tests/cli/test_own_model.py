"""A model of your own, from the command line: exported like ours, its code kept away from what is printed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli_fakes.tool import run

NETS = Path(__file__).parents[1] / "exporter" / "models" / "nets.py"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    shutil.copy(NETS, tmp_path / "nets.py")
    return tmp_path


def test_it_is_exported_verified_and_timed_beside_eager(here: Path) -> None:
    ended = run("fake-good", "nets.py:chatty", "--json", cwd=here)
    said = ended.json  # what it prints itself is in the log
    assert ended.code == 0 and said["verdict"] == "PASS" and said["bundle"] == "chatty.bundle"
    assert {s["name"] for s in said["profile"]["subjects"] if s["median_ms"]} == {"eager", "fake-good"}
    manifest = json.loads((here / "chatty.bundle" / "manifest.json").read_text())
    assert [t["name"] for t in manifest["outputs"]] == ["logits", "maps.0", "maps.1"]
    assert (manifest["model"]["name"], manifest["model"]["family"]) == ("chatty", "own")
    assert manifest["weights"]["kind"] == "own" and str(here) not in json.dumps(manifest)
    assert any(case["name"] == "sample-example" for case in manifest["cases"])

    again = run("fake-good", "nets.py:chatty", "--no-profile", "--json", cwd=here).json
    assert [s["stage"] for s in again["stages"] if s["cached"]][:2] == ["trace", "reference"]
    (here / "nets.py").write_text((here / "nets.py").read_text().replace("torch.relu(", "torch.tanh("))
    run("fake-good", "nets.py:chatty", "--no-profile", cwd=here).refused("other-graph")


@pytest.mark.slow
def test_a_bundle_never_says_which_code_to_run(here: Path) -> None:
    run("fake-good", "nets.py:with_example", "--no-profile", cwd=here)
    alone = run("profile", "with-example.bundle", "--seconds", "1", "--json", cwd=here).json
    (eager,) = [s for s in alone["subjects"] if s["name"] == "eager"]
    assert eager["verdict"] == "SKIPPED" and "--model nets.py:with_example" in eager["reason"]
    named = run(
        "profile", "with-example.bundle", "--model", "nets.py:with_example", "--seconds", "1", "--json", cwd=here
    )
    (eager,) = [s for s in named.json["subjects"] if s["name"] == "eager"]
    assert eager["median_ms"]


@pytest.mark.slow
def test_new_samples_are_judged_where_the_code_is(here: Path) -> None:
    import numpy as np

    run("fake-good", "nets.py:net", "--input", "image=1x3xHx8", "--dim", "H=4:8:16", "--no-profile", cwd=here)
    np.savez(here / "one.npz", image=np.ones((1, 3, 12, 8), np.float32))
    run("verify", "net.bundle", "--samples", "one.npz", cwd=here).refused("samples-need-reference")
    ended = run("verify", "net.bundle", "--samples", "one.npz", "--model", "nets.py:net", "--json", cwd=here)
    assert ended.code == 0 and "sample-one" in ended.out
    other = run("verify", "net.bundle", "--samples", "one.npz", "--model", "nets.py:tagger", cwd=here)
    other.refused("example-failed")


@pytest.mark.slow
def test_inputs_from_a_sample(here: Path) -> None:
    import numpy as np

    np.savez(here / "one.npz", image=np.full((1, 3, 8, 8), 2, np.float32))
    said = run("fake-good", "nets.py:net", "--samples", "one.npz", "--no-profile", "--json", cwd=here).json
    assert said["verdict"] == "PASS"


@pytest.mark.parametrize(
    "folder",
    ['it\'s "quoted"; echo x', *(pytest.param(n, marks=pytest.mark.slow) for n in ("with space", "ünï©ode", "-dash"))],
)
def test_files_with_names_of_all_kinds(here: Path, folder: str) -> None:
    place = here / folder
    place.mkdir()
    shutil.move(here / "nets.py", place / "my nets.py")
    ended = run("fake-good", f"./{folder}/my nets.py:with_example", "--no-profile", "-o", "it.bundle", cwd=here)
    assert ended.code == 0, ended.err


def test_code_that_fails_is_told_in_four_parts_and_leaves_nothing(here: Path) -> None:
    said = run("fake-good", "nets.py:raises", cwd=here).refused("factory-failed")
    assert "Traceback" not in said and "nets.py:" in said
    assert [path.name for path in here.iterdir()] == ["nets.py"] or not list(here.glob("*.bundle"))
    run("fake-good", "nets.py:network", cwd=here).refused("needs-network")


def test_a_definition_is_written_and_exports(here: Path) -> None:
    words = ("nets.py:net", "--input", "image=1x3xHx8", "--dim", "H=4:7:16", "--set", "width=3")
    said = run("init", *words, "--json", cwd=here).json
    assert said == {
        "schema": "exporter.init/1", "file": "net_definition.py", "model": "net_definition.py:net_definition",
    }  # fmt: skip
    text = (here / "net_definition.py").read_text()
    assert (
        'Tensor("image", (1, 3, "H", 8)' in text
        and 'Dim("H", 4, 7, 16)' in text
        and 'Tensor("maps.1", (1, 3, "?", 4)' in text
    )
    run("init", *words, cwd=here).refused("file-exists")
    run("init", "gtcrn", cwd=here).refused("has-definition")
    ended = run("fake-good", "net_definition.py:net_definition", "--no-profile", "--json", cwd=here)
    assert ended.code == 0 and ended.json["verdict"] == "PASS"


@pytest.mark.slow
def test_a_range_that_was_guessed_is_told_and_one_that_is_known_is_kept(here: Path) -> None:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["rows"]), helper.make_node("Gather", ["rows", "at"], ["y"]),
    ]  # fmt: skip
    ends = [helper.make_tensor_value_info(name, TensorProto.INT64, [3]) for name in ("ids", "at")]
    words = numpy_helper.from_array(np.linspace(-1, 1, 200, dtype=np.float32).reshape(50, 4), "words")
    graph = helper.make_graph(
        nodes, "g", ends, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 4])], [words]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), here / "it.onnx")

    guessed = run("mobile", "it.onnx", "--no-profile", cwd=here)
    assert guessed.code == 0, guessed
    assert "note, traced: input at: drawn from 0..1" in guessed.out and "give --input at=3:i64:0:99" in guessed.out
    inputs = json.loads((here / "it.bundle" / "manifest.json").read_text())["inputs"]
    assert [(t["low"], t["high"]) for t in inputs] == [(0, 49), (0, 1)] and "50 entries" in inputs[0]["meaning"]
    told = run("mobile", "it.onnx", "--input", "at=3:i64:0:2", "--no-profile", "--replace", cwd=here)
    assert told.code == 0 and "drawn from" not in told.out, told
    inputs = json.loads((here / "it.bundle" / "manifest.json").read_text())["inputs"]
    assert [(t["low"], t["high"]) for t in inputs] == [(0, 49), (0, 2)]
    run("mobile", "it.onnx", "--input", "at=4:i64:0:2", "--no-profile", cwd=here).refused("bad-input")
