"""The work that a bundle tells of, which may come from anyone."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from exporter.errors import Refused
from exporter.work import stored


def manifest(*graphs: str, repeat: Any = 1) -> Any:
    return SimpleNamespace(
        graphs={name: SimpleNamespace(work=f"{name}.json") for name in graphs},
        program=[SimpleNamespace(graph=name, repeat=repeat if name == graphs[-1] else 1) for name in graphs],
        dims=[SimpleNamespace(name="iterations", opt=8)],
    )


def written(folder: Path, **graphs: Any) -> Any:
    for name, value in graphs.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return lambda file: folder / file


def test_several_graphs_keep_their_names_apart_and_run_as_often_as_said(tmp_path: Path) -> None:
    path_of = written(
        tmp_path, first={"n": ["MatMul", 10, "m", {"x": 4}, {"y": 8}]}, loop={"n": ["MatMul", 3, "m", {"x": 4}, {}]}
    )
    it = manifest("first", "loop", repeat="iterations")
    assert stored.runs(it) == {"first": 1, "loop": 8}
    assert stored.single(path_of, it)["loop.n"].reads == {"loop.x": 4}
    assert {node: of.multiplications for node, of in stored.whole(path_of, it).items()} == {"first.n": 10, "loop.n": 24}


def test_a_node_that_multiplies_nothing_is_no_part_of_the_arithmetic(tmp_path: Path) -> None:
    path_of = written(tmp_path, net={"a": ["Add", 0, "m", {"x": 4}, {"y": 4}], "c": ["Conv", 7, "m"]})
    assert set(stored.whole(path_of, manifest("net"))) == {"c"}
    assert set(stored.single(path_of, manifest("net"))) == {"a", "c"}, "entries of older bundles say no traffic"


NO_COUNTS: list[Any] = [
    [], {"n": 5}, {"n": "Conv"}, {"n": ["Gemm", "many", ""]}, {"n": ["Conv"]}, {"n": ["Conv", 1, "m", [], {}]},
    {"n": ["Conv", 1, "m", {"x": "?"}]},
]  # fmt: skip


@pytest.mark.parametrize("value", NO_COUNTS)
def test_what_is_no_count_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(Refused, match="no count of work") as refused:
        stored.single(written(tmp_path, net=value), manifest("net"))
    assert refused.value.code == "bad-manifest"


@pytest.mark.parametrize("text", ["{", "null", "[" * 5000])
def test_what_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    path_of = written(tmp_path, net={})
    (tmp_path / "net.json").write_text(text)
    with pytest.raises(Refused, match="no count of work"):
        stored.single(path_of, manifest("net"))
