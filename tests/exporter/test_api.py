"""The same as the command line, from Python."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import exporter
from exporter.errors import Incomplete, Refused
from tests.cli_fakes.tool import assert_whole, contents, environment, exported, run

WORK = """
import json, sys
import numpy as np
import exporter

assert __name__ == "__main__"
made = exporter.export("tiny", "fake-good", "made.bundle", dims={"T": "2:5:7"}, settings={"width": 6}, seed=3,
                       profile=False)
bundle = exporter.open(made.bundle)
verification = bundle.verify("fake-good", save=True)
profile = bundle.profile("fake-good", seconds=1.0, threads=1)
np.savez("in.npz", x=np.ones((5, 6), np.float32))
ran = bundle.run("fake-good", "in.npz", "out.npz")
with bundle.runner("fake-good") as runner:
    direct = runner.infer({"x": np.ones((5, 6), np.float32)})["y"]
with np.load("out.npz") as found:
    assert np.array_equal(found["y"], direct)
print(json.dumps({
    "export": made.as_json(), "verify": verification.as_json(), "profile": profile.as_json(), "ran": ran,
    "dims": [str(d) for d in bundle.manifest.dims], "options": dict(bundle.manifest.model.options),
    "torch": "torch" in sys.modules,
}))
"""


def test_the_whole_of_it(tmp_path: Path) -> None:
    """Written as a person would: a script without a guard, since children never import it."""
    (tmp_path / "script.py").write_text(WORK)
    words, env = [sys.executable, "script.py"], environment()
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["export"]["verdict"] == found["verify"]["verdict"] == "PASS"
    assert found["dims"] == ["2:5:7"] and found["options"] == {"width": 6}
    assert [s["name"] for s in found["profile"]["subjects"]] == ["eager", "fake-good"]
    assert found["profile"]["subjects"][1]["threads"] == 1
    assert found["ran"] == {"calls": 1, "outputs": {"y": [5, 3]}}
    assert not found["torch"], "PyTorch is imported in children, not in the user's process"
    assert "verify" in assert_whole(tmp_path / "made.bundle").manifest.reports
    assert run("verify", tmp_path / "made.bundle").code == 0, "made in Python, verified on the command line"


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="unknown-target"):
        exporter.export("gtcrn", "no-such-target", tmp_path / "x")
    with pytest.raises(exporter.ExporterError, match="unknown-model") as caught:
        exporter.export("gtcrm", "openvino", tmp_path / "x")
    assert "gtcrn" in caught.value.what and caught.value.exit_code == 2
    with pytest.raises(Refused, match="bad-dim"):
        exporter.export("gtcrn", "openvino", tmp_path / "x", dims={"T": "1:5:9"})
    with pytest.raises(Refused, match="missing-file"):
        exporter.open(tmp_path / "no.bundle")
    with pytest.raises(Refused, match="not-a-bundle"):
        exporter.open(tmp_path)
    assert contents(tmp_path) == {}


def test_an_opened_bundle(tmp_path: Path) -> None:
    bundle = exporter.open(exported("tiny", "mobile"))
    assert isinstance(bundle, exporter.OpenBundle)
    assert bundle.manifest.model.name == "tiny" and bundle.path == exported("tiny", "mobile")
    with bundle.runner("mobile") as runner:
        outputs = runner.infer({"x": np.ones((3, 4), np.float32)})
    assert outputs["y"].shape == (3, 3)
    assert bundle.report(tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    for work in (bundle.verify, bundle.profile, bundle.runner):
        with pytest.raises(Refused, match="unknown-target"):
            work("openvino")
    with pytest.raises(Refused, match="missing-file"):
        bundle.profile("mobile", checkpoint=tmp_path / "no.pt")
    with pytest.raises(Refused, match="missing-file"):
        bundle.run("mobile", tmp_path / "no.npz", tmp_path / "out.npz")
    with pytest.raises(Refused, match="bad-output"):
        bundle.run("mobile", tmp_path / "no.npz", tmp_path / "out.txt")


@pytest.mark.parametrize("name", ["export", "open", "compare", "OpenBundle.verify", "OpenBundle.profile",
                                  "OpenBundle.runner", "OpenBundle.run", "OpenBundle.report"])  # fmt: skip
def test_every_function_says_what_it_takes_and_raises(name: str) -> None:
    function = exporter
    for part in name.split("."):
        function = getattr(function, part)
    text = inspect.getdoc(function) or ""
    assert "Args:" in text and "Raises:" in text
    for parameter in inspect.signature(function).parameters:
        assert parameter == "self" or f"{parameter}:" in text, f"{name} does not explain {parameter}"


def test_all_that_is_promised_is_there() -> None:
    assert all(hasattr(exporter, name) for name in exporter.__all__)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        getattr(exporter, "nothing_of_the_kind")  # noqa: B009
    assert issubclass(Incomplete, exporter.ExporterError)
