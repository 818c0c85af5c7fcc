"""What people look at is gathered from a case, from host steps undone, and from what the bundle keeps of artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from exporter.report.examples import gathered
from exporter.spec import HostStep
from tests.exporter.report.bundles import published

STEPS: dict[str, Any] = {
    "before": (HostStep("image", {"to": "x", "high": 255.0}),),
    "after": (HostStep("clamp", {"of": "y", "to": "image"}),),
}
X = 255 * np.linspace(0, 1, 48, dtype=np.float32).reshape(1, 3, 4, 4)
CASE = {"input/x": X, "input/h": np.zeros((1, 4), np.float32), "reference/y": X.astype(np.float64) / 255,
        "eager/y": X / 255, "truth/image": X / 510, "noise/y": np.zeros(3)}  # fmt: skip
GAVE = {
    "some/fp32/sample-a/image": np.full((4, 4, 3), 7, np.uint8),
    "some/int8/sample-b/image": np.zeros((4, 4, 3), np.uint8),
    "some/fp32/sample-a/audio": np.zeros(3, np.float64),
}


def test_what_was_given_what_is_right_and_what_the_artifact_gave(tmp_path: Path) -> None:
    found = gathered(published(tmp_path / "b", case=save(CASE), previews=save(GAVE), **STEPS))
    assert found.problem == ""
    (example,) = found.found
    assert example.case == "sample-a"
    assert [(v.kind, v.name) for v in example.versions] == [
        ("given", "x"), ("truth", ""), ("reference", ""), ("eager", ""), ("artifact", "some/fp32"),
    ]  # fmt: skip
    given, truth, reference, _, artifact = (v.values["image"] for v in example.versions)
    np.testing.assert_array_equal(given, np.rint(X[0]).transpose(1, 2, 0))
    np.testing.assert_array_equal(given, reference)
    assert int(truth.max()) == 128 and set(artifact.ravel().tolist()) == {7}


def test_without_a_real_input_no_child_is_started(tmp_path: Path) -> None:
    assert gathered(published(tmp_path / "b", **STEPS)).found == ()


def test_a_step_that_no_version_knows_costs_what_there_is_to_look_at_and_no_more(tmp_path: Path) -> None:
    found = gathered(published(tmp_path / "b", case=save(CASE), after=(HostStep("explode"),)))
    assert found.found == () and "explode" in found.problem


def test_steps_with_options_that_make_no_sense_end_in_the_child(tmp_path: Path) -> None:
    for options in ({"of": "y", "height": 10**9, "width": 10**9}, {"of": "y", "height": "x", "width": []}):
        after = (HostStep("resize", options), HostStep("clamp", {"of": "y", "to": "image"}))
        found = gathered(published(tmp_path / f"{len(str(options))}", case=save(CASE), after=after))
        assert found.found == () and found.problem


def test_files_that_are_no_tensors_are_told(tmp_path: Path) -> None:
    assert gathered(published(tmp_path / "a", case=b"not tensors", **STEPS)).problem
    found = gathered(published(tmp_path / "b", case=save(CASE), previews=b"not tensors", **STEPS))
    assert [v.kind for v in found.found[0].versions] == ["given", "truth", "reference", "eager"]
