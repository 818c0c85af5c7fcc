"""The arrows of the architecture, held by looking at the source: who may import whom, and who may name what."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_fakes.tool import COMMAND, ROOT, environment, exported, run

CORE = sorted((ROOT / "exporter").rglob("*.py"))
TARGETS = sorted((ROOT / "targets").glob("[!_]*.py"))
# Parts of a target, in a folder of its own: they may import its runtime, and no other.
PARTS = sorted((ROOT / "targets").glob("_*/*.py"))
MODELS = sorted(p for p in (ROOT / "model_defs").iterdir() if not p.name.startswith(("_", ".")))
RUNTIMES = {"openvino", "onnxruntime", "tensorrt", "nncf", "coremltools", "tflite"}
OWN = {"openvino.py": {"openvino", "nncf"}, "mobile.py": {"onnxruntime"}, "tensorrt.py": {"tensorrt"}}
TORCH = {
    "trace.py",
    "untraceable.py",
    "mutation.py",
    "recurrent.py",
    "attention.py",
    "reference.py",
    "lowered_eager.py",
    "decisions.py",
    "define.py",
    "checkpoint.py",
    "latency/eager.py",
    "diagnose/eager.py",
    *(f"models/{name}.py" for name in ("call", "dependencies", "derive", "graphs", "own", "program", "tables")),
}
HEAVY = {"torch", "onnx", "onnxscript", "onnx_ir", "onnxsim", *RUNTIMES}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every imported module's name, and whether the import runs when the file is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))

    def walk(node: ast.AST, top: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), top
            yield from ((f"{node.module}.{alias.name}", top) for alias in node.names if not node.level)
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        inner = top and not typing and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inner)

    yield from walk(tree, True)


def roots(path: Path, top_only: bool = False) -> set[str]:
    return {name.split(".")[0] for name, top in imports(path) if top or not top_only}


def words(path: Path) -> set[str]:
    """Every name and every piece of text of the code; what is said in docstrings does not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            found |= set(re.findall(r"[A-Za-z_][A-Za-z0-9_-]*", node.value.lower()))
        for field in ("id", "attr", "name", "arg", "module"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                found |= {value.lower(), *value.lower().split(".")}
    return found


def test_there_is_something_to_look_at() -> None:
    assert len(CORE) > 30 and len(TARGETS) >= 3 and MODELS


@pytest.mark.parametrize("path", CORE, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_knows_no_target_and_no_model(path: Path) -> None:
    targets = {p.stem for p in TARGETS} | {p.stem.replace("_", "-") for p in TARGETS}
    models = {p.stem for p in MODELS} | {"gtcrn-stream", "gtcrn_stream"}
    assert not roots(path) & {"targets", "model_defs", *RUNTIMES}
    assert not words(path) & (targets | models)


@pytest.mark.parametrize("path", CORE, ids=lambda p: str(p.relative_to(ROOT)))
def test_who_imports_torch_and_rich(path: Path) -> None:
    name = str(path.relative_to(ROOT / "exporter"))
    if name not in TORCH:
        real = {n for n, _ in imports(path) if n.split(".")[0] == "torch"}
        hidden = {n for n, top in imports(path) if top and n.split(".")[0] == "torch"}
        assert not hidden and (not real or name == "spec.py"), "spec.py names a type of it, for type checkers alone"
    assert ("rich" in roots(path)) == (name == "cli/console.py")


@pytest.mark.parametrize("path", [*TARGETS, *PARTS], ids=lambda p: str(p.relative_to(ROOT / "targets")))
def test_a_runtime_is_imported_by_its_own_target_inside_functions(path: Path) -> None:
    assert not roots(path, top_only=True) & HEAVY
    of = path.name if path in TARGETS else f"{path.parent.name.removeprefix('_')}.py"
    assert roots(path) & RUNTIMES <= OWN.get(of, set())
    ours = {name for name, _ in imports(path) if name.split(".")[0] in ("exporter", "targets", "model_defs")}
    allowed = ("exporter.target", "exporter.graph", "exporter.errors", "exporter.folders", "exporter.evaluator")
    assert all(name.startswith(allowed) for name in ours), "a target sees the protocol, and no other target"


@pytest.mark.parametrize("path", sorted((ROOT / "model_defs").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_definition_sees_only_the_spec(path: Path) -> None:
    ours = {name for name, _ in imports(path) if name.split(".")[0] in ("exporter", "targets")} - {"exporter"}
    allowed = ("exporter.spec", "exporter.budget", "exporter.settings", "exporter.errors", "exporter.host")
    if "torch" in roots(path):
        allowed += ("exporter.checkpoint",)  # published backbones are read as whole models are
    if path.name == "train.py":
        allowed += ("exporter.graph", "exporter.cli")  # a program: it speaks as the others do
    assert all(name.startswith(allowed) for name in ours)
    assert not roots(path) & (HEAVY - {"torch"}), "no runtime, and no export hacks"


RANKS = (
    "errors", "verdict", "spec", "manifest", "bundle", "stages", "hops", "graph_stages", "verification", "pipeline",
    "api", "cli",
)  # fmt: skip


@pytest.mark.parametrize("path", CORE, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_point_down(path: Path) -> None:
    """A module imports none that stands above it: the command line is above the pipeline, errors are below all."""
    own = path.relative_to(ROOT / "exporter").with_suffix("").parts[0]
    above = set(RANKS[RANKS.index(own) + 1 :]) if own in RANKS else {"pipeline", "api", "cli"}
    if own in ("__init__", "__main__"):
        return
    used = {name.split(".")[1] for name, top in imports(path) if top and name.startswith("exporter.")}
    assert not used & above


# ------------------------------------------------------------------------------------------- what a start costs


def imported(*words: str) -> set[str]:
    """What Python says it imported (``-X importtime``) while it ran these words."""
    command = [sys.executable, "-X", "importtime", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    return {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}


def test_help_and_import_load_nothing_heavy() -> None:
    heavy = {"torch", "onnx", "onnxruntime", "openvino", "numpy", "polygraphy", "safetensors", "onnxscript"}
    shown = imported(str(COMMAND), "--help")
    assert "typer" in shown and not shown & heavy
    assert not imported("-c", "import exporter") & {*heavy, "typer", "rich"}
    assert not imported(str(COMMAND), "--version") & heavy
    assert not imported(str(COMMAND), "fake-good", "--help") & heavy, "nor the targets that are named"


# ------------------------------------------------------------------------------- files that come, go, and shadow


def copy_of_ours(folder: Path) -> Path:
    for name in ("exporter", "targets", "model_defs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def python_m(place: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """``python -m exporter`` of the tree at ``place``, wherever a person stands."""
    path = os.pathsep.join([str(place), environment()["PYTHONPATH"]])
    command = [sys.executable, "-m", "exporter", *words]
    env = environment(PYTHONPATH=path)
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, timeout=120, check=False)


@pytest.mark.slow
def test_a_target_that_is_deleted_is_missed_by_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    place = copy_of_ours(tmp_path / "tree")
    (place / "targets" / "openvino.py").unlink()
    shown = python_m(place, "--help", cwd=tmp_path)
    assert shown.returncode == 0 and "mobile" in shown.stdout and "openvino" not in shown.stdout
    listed = python_m(place, "targets", "--json", cwd=tmp_path)
    assert listed.returncode == 0 and '"openvino"' not in listed.stdout and '"mobile"' in listed.stdout
    done = python_m(place, "mobile", "tiny", "--no-profile", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("PASS"), done
    assert python_m(place, "openvino", "tiny", cwd=tmp_path).returncode == 2
    assert python_m(place, "verify", "tiny.bundle", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("how", ["command", pytest.param("-m", marks=pytest.mark.slow)])
def test_folders_of_the_user_do_not_shadow_ours(tmp_path: Path, how: str) -> None:
    for name in ("targets", "model_defs"):
        (tmp_path / name).mkdir()
        for file in ("__init__.py", "openvino.py", "mobile.py", "gtcrn.py"):
            (tmp_path / name / file).write_text("raise SystemExit('the wrong one was imported')\n")
    bundle = str(exported())
    for words in (["targets", "--json"], ["verify", bundle], ["models", "tiny", "--json"]):
        done = run(*words, cwd=tmp_path) if how == "command" else python_m(ROOT, *words, cwd=tmp_path)
        code = done.code if how == "command" else done.returncode
        assert code == 0, done
        assert "the wrong one" not in str(done)


def test_a_package_of_the_user_called_exporter_does_not_reach_the_children(tmp_path: Path) -> None:
    (tmp_path / "exporter").mkdir()
    (tmp_path / "exporter" / "__init__.py").write_text("raise SystemExit('the wrong one was imported')\n")
    done = run("verify", exported(), cwd=tmp_path)
    assert done.code == 0, done
