"""Targets and models register by existing; nothing shadows ours, and a misspelt name names its neighbours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from exporter import registry
from exporter.errors import Refused


@pytest.mark.parametrize(
    ("call", "word", "code", "near"),
    [
        (registry.target, "openvno", "unknown-target", "openvino"),
        (registry.target, "onnx_reference", "unknown-target", "onnx-reference"),
        (registry.model, "gtcm", "unknown-model", "gtcrn"),
        (registry.model, "../gtcrn", "unknown-model", "gtcrn"),
    ],
)
def test_a_misspelt_name(call: object, word: str, code: str, near: str) -> None:
    with pytest.raises(Refused) as caught:
        call(word)  # type: ignore[operator]
    error = caught.value
    assert error.code == code and near in error.what and error.why and error.next


def test_an_unknown_option() -> None:
    with pytest.raises(Refused) as caught:
        registry.model("gtcrn", {"width": 3})
    assert caught.value.code == "bad-option" and "width" in caught.value.what


def test_names_cost_no_import() -> None:
    code = (
        "import sys; from exporter import registry; registry.target_names(); registry.model_names();"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'openvino', 'tensorrt'} & set(sys.modules);"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_users_folder_does_not_shadow_ours(tmp_path: Path) -> None:
    for folder in ("targets", "model_defs"):
        (tmp_path / folder).mkdir()
        for name in ("__init__", "mobile", "gtcrn"):
            (tmp_path / folder / f"{name}.py").write_text("raise SystemExit('the wrong file was imported')")
    code = (
        "import sys; sys.path.insert(0, ''); from exporter import registry;"
        "print(registry.target('mobile').name, registry.model('gtcrn').name)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["mobile", "gtcrn"], done.stderr


def test_each_file_is_one_target() -> None:
    for name in registry.target_names():
        assert registry.target(name) is registry.target(name)
