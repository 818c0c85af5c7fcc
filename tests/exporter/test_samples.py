"""Real inputs on their way to the graph: host steps, what they leave for the way back, truth, counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from exporter import samples
from exporter.bundle import read_tensors
from exporter.errors import Refused
from exporter.spec import Dim, HostStep, ModelDef, Part, Sample, Tensor

HERE = Path("picture.npz")


def definition(own: Mapping[str, Sample] | None = None) -> ModelDef:
    image = Tensor("image", (1, 3, "H", "W"), "picture", low=0.0)
    out = Tensor("restored", (1, 3, "H", "W"), "picture")
    return ModelDef(
        name="restorer", family="fakes", build=lambda: None, inputs=(image,), outputs=(out,), source="s", licence="l",  # type: ignore[arg-type,return-value]
        dims=(Dim("H", 8, 32, 64, 8), Dim("W", 8, 32, 64, 8), Dim("rounds", 1, 2, 6)),
        before=(
            HostStep("image", {"to": "image", "high": 1.0}),
            HostStep("pad", {"of": ["image"], "multiple": 8, "mode": "edge", "sides": "end"}),
        ),
        parts=(Part("loop", lambda m: m, (image,), (out,), "rounds"),),
        samples=(lambda: list((own or {}).values())),
    )  # fmt: skip


def test_a_picture_becomes_the_input_and_leaves_its_size() -> None:
    picture = np.full((30, 41, 3), 255, np.uint8)
    prepared = samples.prepare(definition(), {"image": picture}, HERE)
    assert prepared.inputs["image"].shape == (1, 3, 32, 48) and prepared.inputs["image"].max() == 1.0
    assert list(prepared.context) == ["image.size"]
    assert samples.sizes_of(definition(), prepared.inputs, HERE) == ({"H": 32, "W": 48, "rounds": 2}, 1)


def test_what_is_the_input_already_is_left_alone() -> None:
    image = np.random.default_rng(0).random((1, 3, 32, 40), np.float32)
    prepared = samples.prepare(definition(), {"image": image}, HERE)
    assert np.array_equal(prepared.inputs["image"], image) and not prepared.context


def test_an_input_of_a_size_the_model_has_not_goes_through_the_steps() -> None:
    prepared = samples.prepare(definition(), {"image": np.zeros((1, 3, 30, 40), np.float32)}, HERE)
    assert prepared.inputs["image"].shape == (1, 3, 32, 40) and "image.size" in prepared.context


def test_a_count_is_the_files_or_the_usual_one() -> None:
    image = np.zeros((1, 3, 32, 32), np.float32)
    assert samples.prepare(definition(), {"image": image}, HERE).inputs["rounds"] == 2
    assert samples.prepare(definition(), {"image": image, "rounds": np.array(5)}, HERE).inputs["rounds"] == 5
    with pytest.raises(Refused, match="rounds would be 7"):
        samples.sizes_of(definition(), {"image": image, "rounds": np.array(7)}, HERE)


def test_a_misspelt_input_is_not_taken_for_an_absent_one() -> None:
    with pytest.raises(Refused) as caught:
        samples.prepare(definition(), {"imgae": np.zeros((4, 4, 3), np.uint8)}, HERE)
    assert caught.value.code == "bad-sample" and "nearest: image" in caught.value.what


def test_truth_stays_truth() -> None:
    values = {"image": np.zeros((32, 32, 3), np.uint8), "truth/image": np.ones((1, 3, 32, 32), np.float32)}
    prepared = samples.prepare(definition(), values, HERE)
    assert prepared.truth["image"].max() == 1.0 and prepared.inputs["image"].max() == 0.0
    assert set(prepared.tensors()) == {"input/image", "input/rounds", "context/image.size", "truth/image"}


def test_a_definitions_own_samples_become_files(tmp_path: Path) -> None:
    picture = np.zeros((20, 20, 3), np.uint8)
    own = {"a": Sample("noisy cat", {"image": picture}, {"image": np.zeros((1, 3, 20, 20), np.float32)})}
    (file,), notes = samples.own_files(definition(own), tmp_path)
    assert not notes
    assert Path(file).name == "noisy-cat.safetensors"
    assert set(read_tensors(Path(file))) == {"input/image", "input/rounds", "context/image.size", "truth/image"}
    case = samples.case_of(definition(), Path(file))
    assert case.name == "sample-noisy-cat" and case.sizes == {"H": 24, "W": 24, "rounds": 2}


def test_a_sample_that_no_longer_fits_is_left_out_and_said_to_be(tmp_path: Path) -> None:
    own = {"a": Sample("large", {"image": np.zeros((64, 64, 3), np.uint8)})}
    files, notes = samples.own_files(definition(own).with_dims(["H=8:16:32"]), tmp_path)
    assert not files and "large left out: large: dim H would be 64" in notes[0]
    files, notes = samples.own_files(definition(), tmp_path)
    assert not files and "--samples" in notes[0]


def test_a_folder_with_a_picture_per_input_is_one_sample(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / name / "image.png")
    assert samples.find(tmp_path / "one", definition()) == [tmp_path / "one"]
    assert samples.find(tmp_path, definition()) == [tmp_path / "one", tmp_path / "two"]
    prepared = samples.prepared_files(definition(), samples.find(tmp_path, definition()), tmp_path)
    assert [Path(file).name for file in prepared] == ["one.safetensors", "two.safetensors"]
