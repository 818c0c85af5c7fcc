"""What a quantiser takes its scales from: never what is judged, never one value, the same split everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from exporter import calibration
from exporter.calibration import Calibration
from exporter.errors import Refused
from exporter.spec import Dim, ModelDef, Sample, Tensor


def definition(**more: object) -> ModelDef:
    return ModelDef(
        name="it", family="it", build=lambda: None, inputs=(Tensor("x", ("n", 3), "values"),),  # type: ignore[arg-type, return-value]
        outputs=(Tensor("y", ("n", 3), "values"),), source="-", licence="-", dims=(Dim("n", 1, 4, 8),), **more,  # type: ignore[arg-type]
    )  # fmt: skip


def sample(folder: Path, name: str, value: float = 1.0, rows: int = 4) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.safetensors"
    save_file({"x": value * np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)}, path)
    return path


def folder_of(tmp_path: Path, count: int) -> Path:
    for index in range(count):
        sample(tmp_path / "data", f"s{index}", index + 1.0)
    return tmp_path / "data"


def test_one_folder_for_both_is_split_the_same_everywhere(tmp_path: Path) -> None:
    data = folder_of(tmp_path, 9)
    source, scales, judged = calibration.chosen(definition(), data, data, seed=0)
    assert len(scales) == 4 and len(judged) == 5 and not set(scales) & set(judged)
    assert "drawn with seed 0" in source
    assert calibration.chosen(definition(), data, data, seed=0)[1] == scales
    assert calibration.chosen(definition(), data, data, seed=1)[1] != scales


def test_two_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    data, other = folder_of(tmp_path, 3), sample(tmp_path / "other", "o").parent
    _, scales, judged = calibration.chosen(definition(), other, data, seed=0)
    assert [p.name for p in scales] == ["o.safetensors"] and len(judged) == 3
    assert calibration.chosen(definition(), None, data, seed=0)[1] == []


def test_one_file_cannot_be_both(tmp_path: Path) -> None:
    path = sample(tmp_path, "only")
    with pytest.raises(Refused, match="to calibrate on and to judge on") as caught:
        calibration.chosen(definition(), path, path, seed=0)
    assert caught.value.code == "bad-calibration"


def test_without_any_the_definition_s_own_or_generated_ones(tmp_path: Path) -> None:
    made = calibration.prepared(definition(), "", [], tmp_path / "a")
    assert len(made.files) == calibration.GENERATED and "no real input was given" in made.source and not made.real
    assert all(load_file(path)["input/x"].shape == (4, 3) for path in made.files)
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    own = definition(calibration=lambda: [Sample("one", {"x": values}), Sample("two", {"x": 2 * values})])
    made = calibration.prepared(own, "", [], tmp_path / "b")
    assert made.source == "2 of the definition's own" and made.real
    assert np.array_equal(load_file(made.files[1])["input/x"], 2 * values)
    assert len(made.digest) == 64 and made.digest != Calibration("", made.files[:1], True).digest


@pytest.mark.parametrize(
    ("tensors", "code"),
    [
        ({"x": np.zeros((4, 3), np.float64)}, "bad-sample"),
        ({"x": np.zeros((4, 2), np.float32)}, "bad-sample"),
        ({"x": np.zeros((9, 3), np.float32)}, "bad-sample"),
        ({"z": np.zeros((4, 3), np.float32)}, "bad-sample"),
        ({"x": np.full((4, 3), np.nan, np.float32)}, "bad-sample"),
        ({"x": np.full((4, 3), 0.5, np.float32)}, "bad-calibration"),
    ],
)
def test_what_fits_no_model_is_refused(tensors: dict[str, np.ndarray], code: str, tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "it.safetensors")
    with pytest.raises(Refused) as caught:
        calibration.prepared(definition(), "", [tmp_path / "it.safetensors"], tmp_path / "out")
    assert caught.value.code == code, caught.value
    if code == "bad-sample":
        assert str(tmp_path / "it.safetensors") in str(caught.value.where), "the user's own file is named"
        assert "--dim" not in str(caught.value.next) or tensors["x"].shape[0] == 9, "advice that would help"


@pytest.mark.parametrize("values", [(0.0, 0.0), (0.0, 1.0), (2.5, -2.5, 7.0)])
def test_inputs_that_are_one_value_each_have_no_spread(values: tuple[float, ...], tmp_path: Path) -> None:
    files = []
    for index, value in enumerate(values):
        files.append(tmp_path / f"{index}.safetensors")
        save_file({"x": np.full((4, 3), value, np.float32)}, files[-1])
    with pytest.raises(Refused, match="throughout") as caught:
        calibration.prepared(definition(), "", files, tmp_path / "out")
    assert caught.value.code == "bad-calibration"


def test_what_is_judged_is_refused_by_its_values_whatever_its_name(tmp_path: Path) -> None:
    made = calibration.prepared(
        definition(), "given", [sample(tmp_path, "a"), sample(tmp_path, "b", 2.0)], tmp_path / "c"
    )
    case = tmp_path / "case.safetensors"
    save_file({"input/x": load_file(tmp_path / "b.safetensors")["x"], "reference/y": np.zeros(3)}, case)
    with pytest.raises(Refused, match="is the case sample-other as well"):
        calibration.refuse_judged(made, [("sample-other", case)])
    calibration.refuse_judged(Calibration("", made.files[:1], True), [("sample-other", case)])
