"""What a user's code depends on is seen, wherever it has it from: else a graph is taken that is another model's."""

from __future__ import annotations

import _ctypes
import ctypes
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter import registry
from exporter.cache.key import graph_key
from exporter.models import dependencies, found
from exporter.models.dependencies import looking_on, sources_of_code
from exporter.request import Request
from exporter.stages import silent

OWN = """
import json, os
from pathlib import Path
import torch
from exporter.spec import ModelDef, Tensor

HERE = Path(__file__).parent
SETTINGS = json.loads((HERE / "settings.json").read_text())

class Net(torch.nn.Module):
    def forward(self, x):
        import helper
        return x * helper.slope + len(os.listdir(HERE / "classes"))

def deployed(net):
    import rewriting
    return net

def net():
    os.getenv("SLOPE")
    x, y = (Tensor(name, (2, 3), "", "float32") for name in "xy")
    return ModelDef("net", "own", Net, (x,), (y,), "", "", deploy=deployed, weighted=True)
"""


@pytest.mark.slow
def test_each_thing_that_code_was_seen_to_read_makes_another_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    (tmp_path / "classes").mkdir()
    for name, text in {"settings.json": "{}", "helper.py": "slope = 2", "rewriting.py": ""}.items():
        (tmp_path / name).write_text(text)

    def key_of() -> str:
        return graph_key(found(Request(f"{file}:net", "openvino"), silent), (), "")

    before = key_of()
    monkeypatch.setenv("NOBODY_ASKED", "3")
    assert key_of() == before
    seen = [before]
    for name, text in {"settings.json": "[]", "helper.py": "slope = 3", "rewriting.py": "#", "classes/a": ""}.items():
        (tmp_path / name).write_text(text)
        seen.append(key_of())
    monkeypatch.setenv("SLOPE", "3")
    seen.append(key_of())
    assert len(set(seen)) == 6


READS: dict[str, Callable[[Path], Any]] = {
    "open": lambda path: open(path).close(),
    "text": lambda path: open(str(path)).close(),
    "bytes": lambda path: open(os.fsencode(path)).close(),
    "read and write": lambda path: path.open("r+").close(),
    "from the folder": lambda path: Path(path.name).read_text(),
    "by number": lambda path: os.close(os.open(path, os.O_RDONLY)),
    "a copy": lambda path: shutil.copy(path, path.with_suffix(".copy")),
    "code": lambda path: exec(path.read_text()),
}
LEAVES: dict[str, Callable[[Path], Any]] = {
    "written": lambda path: path.write_text("x"),
    "appended": lambda path: path.open("a").close(),
    "looked at": lambda path: path.stat(),
    "gone": lambda path: (path.read_text(), path.unlink()),
}


@pytest.mark.parametrize("how", [*READS, *LEAVES])
def test_a_file_counts_if_it_is_read(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = (tmp_path / "it").resolve()
    path.touch()
    monkeypatch.chdir(tmp_path)
    with looking_on() as read:
        (READS | LEAVES)[how](path)
    assert (path in sources_of_code(read)[0]) == (how in READS)
    read.files.clear()
    path.touch()
    path.read_text()
    assert not read.files, "nobody looks on any more"


def test_a_library_that_is_loaded_counts(tmp_path: Path) -> None:
    library = shutil.copy(_ctypes.__file__, tmp_path / "lib.so")
    with looking_on() as read:
        ctypes.CDLL(str(library))
    assert Path(library).resolve() in sources_of_code(read)[0]


@pytest.mark.parametrize(
    "how", ["os.environ['IT']", "os.getenv('IT')", "os.environ.get('IT', 0)", "'IT' in os.environ"]
)
def test_a_variable_counts_if_it_is_asked_for(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest_of(value: str) -> Any:
        monkeypatch.setenv("IT", value)
        monkeypatch.setenv("OTHER", value)
        with looking_on() as read:
            eval(how)
        assert set(read.variables) == {"IT"}
        return sources_of_code(read)[1]

    assert digest_of("1") == digest_of("1") != digest_of("2")


def test_code_counts_wherever_it_lies(tmp_path: Path) -> None:
    """In a checkout of this project, or under a folder that Python is installed in: each had been taken for ours."""
    example = registry.ROOT / "docs" / "examples" / "edges.py"
    with looking_on() as read:
        example.read_text()
    assert example in sources_of_code(read)[0]
    package = tmp_path / "lib" / "site-packages" / "theirs.py"
    package.parent.mkdir(parents=True)
    seen = []
    for text in ("", "#"):
        package.write_text(text)
        with looking_on() as read:
            package.read_text()
        assert package not in sources_of_code(read)[0]
        seen.append(dict(map(tuple, sources_of_code(read)[1]))["installed"])  # type: ignore[misc]
    assert seen[0] != seen[1]
    assert dependencies._installed(Path(os.__file__)) and not dependencies._installed(Path("/usr/src/app/net.py"))
