"""The GPU machine's side of TensorRT, on the double: in an environment without PyTorch and without ONNX."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cli_fakes.tool import SITE, Ended, run
from tests.device.there import PYTHON
from tests.targets.tensorrt import bindings

# Everything a GPU machine needs beside the standard library; rich comes with typer.
ALLOWED = ("exporter", "exporter_targets", "tensorrt", "polygraphy", "numpy", "safetensors", "typer", "rich")


# What typer and Polygraphy bring along.
THEIRS = (
    "click", "shellingham", "markdown_it", "mdurl", "pygments", "typing_extensions", "annotated_doc",
    "annotated_types", "pydantic", "pydantic_core", "typing_inspection",
)  # fmt: skip
BLOCKING = """
import os, sys
class Blocking:
    def find_spec(self, name, path=None, target=None):
        if path is not None or name in {allowed} or name in sys.stdlib_module_names or name.startswith("_"):
            return None
        for place in sys.path:
            if "site-packages" in place and (os.path.isdir(os.path.join(place, name))
                                             or os.path.isfile(os.path.join(place, name + ".py"))):
                raise ModuleNotFoundError(f"blocked: {{name}}", name=name)
        return None
sys.meta_path.insert(0, Blocking())
with open({log!r}, "a") as log:
    log.write("started\\n")
"""


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    if reason := bindings.absent():
        pytest.skip(reason)
    made = bindings.doubled(bindings.NEWEST, tmp_path_factory.mktemp("double"))
    return made | {"PYTHONPATH": made["PYTHONPATH"] + os.pathsep + str(SITE)}


def there(*arguments: object, env: dict[str, str]) -> Ended:
    words = [str(PYTHON.with_name("exporter")), *map(str, arguments)]
    full = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | env
    done = subprocess.run(words, env=full, capture_output=True, text=True, timeout=300, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def test_compile_verify_and_profile_need_neither_pytorch_nor_onnx(tmp_path: Path, env: dict[str, str]) -> None:
    bundle = tmp_path / "tiny.bundle"
    assert run("tensorrt", "tiny", "--precision", "fp16", "-o", bundle, cached=True).code == 3
    made = there("compile", bundle, "--target", "tensorrt", "--precision", "fp16", "--json", env=env)
    assert made.code == 0 and made.json["verdict"] == "PASS", made
    assert made.json["verify"]["hops"][0]["precision"]["ran"] == "fp16"
    assert there("verify", bundle, "--json", env=env).json["verdict"] == "PASS"
    timed = there("profile", bundle, "--seconds", 1, "--layers", "--json", env=env)
    assert timed.code == 0, timed
    subjects = {s["name"]: s for s in timed.json["subjects"]}
    assert subjects["eager on cuda"]["reason"] == "torch absent" and subjects["tensorrt/fp16"]["layer_times"]


def test_it_imports_nothing_but_what_is_promised(tmp_path: Path, env: dict[str, str]) -> None:
    """All else is blocked, in the parent, in every child and in the probe: it is no module there."""
    bundle = tmp_path / "tiny.bundle"
    assert run("tensorrt", "tiny", "-o", bundle, cached=True).code == 3
    log = tmp_path / "imports.jsonl"
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(BLOCKING.format(allowed=sorted({*ALLOWED, *THEIRS}), log=str(log)))
    watched = env | {"PYTHONPATH": os.pathsep.join([str(site), env["PYTHONPATH"]])}
    assert there("compile", bundle, "--target", "tensorrt", "--json", env=watched).code == 0
    assert there("verify", bundle, "--target", "tensorrt", "--json", env=watched).code == 0
    started = log.read_text().splitlines()
    assert len(started) >= 4, "parents, children and probes are blocked alike"
    blocked = subprocess.run(
        [str(PYTHON), "-c", "import onnxruntime"], env=os.environ | watched, capture_output=True, text=True, check=False
    )
    assert "blocked" in blocked.stderr, "the block blocks what is installed there"
