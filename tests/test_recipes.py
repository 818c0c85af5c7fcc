"""CONTRIBUTING.md to the letter: its two files are saved where it says, and its commands are run for real."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PATIENCE = 300


def section(title: str) -> str:
    """The text under a heading, up to the next of its level."""
    (found,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    return found


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def saved(title: str, tree: Path) -> Path:
    """Saves the one Python file of a recipe under the name that the sentence before it gives."""
    text = section(title)
    (name,) = re.findall(r"Save this as\s+`([^`]+)`", text)
    (code,) = blocks(text, "python")
    path = tree / name
    assert not path.exists(), f"{name} would replace a file of ours"
    path.write_text(code, encoding="utf-8")
    return path


class Reader:
    """Who follows the guide: a copy of the tree, and a folder of their own to stand in."""

    def __init__(self, folder: Path) -> None:
        self.tree, self.here = folder / "tree", folder / "here"
        self.here.mkdir()
        for name in ("exporter", "targets", "model_defs"):
            shutil.copytree(ROOT / name, self.tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", self.tree)

    def types(self, line: str) -> str:
        """Runs a line of the guide; ``exporter`` is the tree's own."""
        command, *arguments = shlex.split(line)
        assert command == "exporter", line
        environment = {**os.environ, "PYTHONPATH": str(self.tree), "PYTHONDONTWRITEBYTECODE": "1"}
        words = [sys.executable, "-m", "exporter", *arguments]
        ended = subprocess.run(
            words, cwd=self.here, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert ended.returncode == 0, f"{line}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def follows(self, title: str) -> dict[str, str]:
        """Types every line of the recipe's commands; gives what each printed."""
        lines = [line for block in blocks(section(title), "shell") for line in block.splitlines()]
        assert lines, title
        return {line: self.types(line) for line in lines}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader(tmp_path_factory.mktemp("guide"))


def test_the_files_of_the_recipes_pass_lint(reader: Reader, tmp_path: Path) -> None:
    """They are written as the guide asks of others; the tree's own rules are applied at their places."""
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("NO RUFF: it is not installed beside this Python")
    shutil.copytree(reader.tree, tmp_path / "tree")
    for title in ("Add a model", "Add a target"):
        path = saved(title, tmp_path / "tree").relative_to(tmp_path / "tree")
        for words in (["check"], ["format", "--check"]):
            command = [ruff, *words, "--no-cache", path]
            ended = subprocess.run(command, cwd=tmp_path / "tree", capture_output=True, text=True, check=False)
            assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
def test_the_recipes_work_to_the_letter(reader: Reader) -> None:
    """The model first, as the target's recipe exports it."""
    file = saved("Add a model", reader.tree)
    printed = reader.follows("Add a model")
    (count,) = re.findall(r"([\d,]+) parameters", file.read_text(encoding="utf-8"))
    listed, exported, verified = printed.values()
    assert "smoother" in listed and count in listed and "T=2:32:200" in listed
    assert exported.startswith("PASS  smoother  seeded weights")
    assert re.search(r"^PASS +compiled +mobile +fp32 ", exported, re.MULTILINE)
    assert verified.startswith("PASS  smoother")

    saved("Add a target", reader.tree)
    targets, exported, profiled = reader.follows("Add a target").values()
    assert re.search(r"^unfused +yes", targets, re.MULTILINE)
    assert exported.startswith("PASS  smoother") and re.search(
        r"^PASS +compiled +unfused +fp32 ", exported, re.MULTILINE
    )
    assert "trace reused" in exported, "another target of the same graph must not trace again"
    assert re.search(r"^unfused +[\d.]+ ms .* fp32 *$", profiled, re.MULTILINE)
    assert re.search(r"^eager +[\d.]+ ms ", profiled, re.MULTILINE)
