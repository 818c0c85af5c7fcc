"""A line of the user's code is told in the same words on every machine, and survives every pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from exporter.graph import SOURCE, noted
from exporter.source_lines import line_of, portable
from tests.fakes.lab import Specimen


def test_a_file_is_called_from_its_package_on(tmp_path: Path) -> None:
    inner = tmp_path / "somewhere" / "package" / "part"
    inner.mkdir(parents=True)
    for folder in (inner, inner.parent):
        (folder / "__init__.py").touch()
    assert portable(inner / "net.py") == "package/part/net.py"
    assert portable(tmp_path / "alone.py") == "alone.py"


def test_the_innermost_line_of_the_users_own_is_told(tmp_path: Path) -> None:
    trace = (
        f'  File "{tmp_path}/train.py", line 3, in main\n    model(x)\n'
        f'  File "{tmp_path}/net.py", line 12, in forward\n    return self.conv(x)\n'
        '  File "/lib/torch/nn/modules/conv.py", line 550, in forward\n    return F.conv2d(x)\n'
    )
    assert line_of(trace, ("/lib/torch",)) == "net.py:12"
    assert line_of(trace, ("/lib/torch", str(tmp_path))) == ""
    assert line_of('  File "runtime_assert.py", line 24, in add_runtime_asserts', ()) == ""
    assert line_of("", ()) == ""


@pytest.mark.parametrize("hop", ["traced", "simplified"])
def test_every_node_with_a_module_has_its_line(hop: str, specimens: Callable[..., Specimen]) -> None:
    it = specimens("gtcrn")
    nodes = onnx.load(str(it.graphs(hop)["model"])).graph.node
    lines = [noted(node, SOURCE) for node in nodes]
    assert sum(line is not None for line in lines) >= 0.9 * len(nodes)
    root = Path(__file__).resolve().parents[2]
    for line in filter(None, lines):
        name, _, number = line.rpartition(":")
        assert name.startswith("model_defs/gtcrn/"), line
        assert 0 < int(number) <= len((root / name).read_text(encoding="utf-8").splitlines())
