"""Manifests there and back, and what random damage does to them."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exporter.errors import Refused
from exporter.manifest import SCHEMA, Manifest, PassRecord, decode, encode, limits, mentioned
from tests.attacks.bundles import manifest, spoiled

GOOD = json.loads(encode(manifest()))


def test_there_and_back() -> None:
    assert decode(encode(manifest())) == manifest()


def test_equal_manifests_are_equal_bytes() -> None:
    one = manifest()
    other = dataclasses.replace(one, files=dict(reversed(one.files.items())), tools=dict(one.tools))
    assert encode(one) == encode(other)
    assert encode(one).startswith(b'{\n "schema": "exporter.bundle/2",')


def test_every_field_is_used_by_the_example() -> None:
    fields = {field.name for field in dataclasses.fields(Manifest)} - {"reports"}
    assert all(getattr(manifest(), name) for name in fields)


def test_every_file_is_among_the_mentioned() -> None:
    assert {name for _, name in mentioned(manifest())} == set(manifest().files)


def test_text_of_tools_is_made_printable_and_cut() -> None:
    one = manifest()
    record = PassRecord("fold", "dropped", "\x1b[31mred\x07" + "x" * 10_000)
    graph = dataclasses.replace(one.graphs["step"], passes=(record,))
    reason = decode(encode(dataclasses.replace(one, graphs={"step": graph}))).graphs["step"].passes[0].reason
    assert "\x1b" not in reason and "red" in reason and len(reason) == limits.MAX_TEXT


@pytest.mark.parametrize(
    "change",
    [
        {"key": "not a digest"},
        {"dims": ()},
        {"files": {}},
        {"program": ()},
        {"tools": {"a": float("nan")}},
        {"tools": {"a": object()}},
        {"tools": {1: "a"}},
    ],
)
def test_what_would_not_open_is_not_written(change: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        encode(dataclasses.replace(manifest(), **change))
    assert caught.value.code == "bad-manifest"


def first_schema(**more: Any) -> dict[str, Any]:
    """The manifest as schema 1 had it."""
    value = json.loads(encode(manifest()))
    del value["yardsticks"]
    for target in value["targets"].values():
        for key in ("graphs", "options", "way", "kept", "left", "calibration", "budget"):
            del target[key]
    for graph in value["graphs"].values():
        del graph["work"]
    return value | {"schema": "exporter.bundle/1"} | more


def test_an_older_schema_is_upgraded() -> None:
    opened = decode(json.dumps(first_schema()).encode())
    assert opened.schema == SCHEMA and opened.yardsticks == {}
    for target in opened.targets.values():
        assert (
            target.graphs == {}
            and target.options == {}
            and target.way == ""
            and target.calibration is None
            and not target.budget
        )
    assert all(graph.work == "" for graph in opened.graphs.values())
    assert opened.cases == manifest().cases


@pytest.mark.parametrize("more", [{"yardsticks": {}}, {"targets": {"some/fp32": {"graphs": {}}}}, {"targets": 1}])
def test_an_older_schema_holds_no_key_of_a_later_one(more: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        decode(json.dumps(first_schema(**more)).encode())
    assert caught.value.code == "bad-manifest"


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner: list[tuple[Any, ...]] = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        inner += places(item, (*path, key))
    return inner


PLACES = places(GOOD)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def put(root: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    inner = root
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return root


def only_refused_or_faithful(data: bytes) -> None:
    """Either it is refused in our words, or it means exactly what it says."""
    try:
        found = decode(data)
    except Refused as error:
        assert error.code in ("bad-manifest", "newer-schema")
        assert error.what and error.where and error.why and error.next
        assert all(letter.isprintable() for letter in error.what + error.where)
        return
    assert decode(encode(found)) == found


@settings(max_examples=400, deadline=None)
@example(("targets", "some/int8", "target"), "\ud7c7")  # unassigned: it must not reach a terminal
@given(st.sampled_from(PLACES), JSON)
def test_any_value_put_anywhere(path: tuple[Any, ...], value: Any) -> None:
    only_refused_or_faithful(json.dumps(put(copy.deepcopy(GOOD), path, value)).encode())


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PLACES[1:]), st.sampled_from(PLACES))
def test_any_part_put_anywhere(path: tuple[Any, ...], source: tuple[Any, ...]) -> None:
    part: Any = GOOD
    for key in source:
        part = part[key]
    only_refused_or_faithful(json.dumps(put(copy.deepcopy(GOOD), path, copy.deepcopy(part))).encode())


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_cut_or_put_in(data: st.DataObject) -> None:
    good = encode(manifest())
    at = data.draw(st.integers(0, len(good)))
    cut = data.draw(st.integers(0, 40))
    only_refused_or_faithful(good[:at] + data.draw(st.binary(max_size=8)) + good[at + cut :])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_at_all(data: bytes) -> None:
    with pytest.raises(Refused):
        decode(data)


@pytest.mark.parametrize(
    "path", [p for p in PLACES if p and isinstance(p[-1], str)], ids=lambda p: ".".join(map(str, p))
)
def test_no_declared_key_may_be_absent(path: tuple[Any, ...]) -> None:
    def drop(value: Any) -> None:
        for key in path[:-1]:
            value = value[key]
        del value[path[-1]]

    free = {
        "kept",
        "left",
        "losses",
        "options",
        "tools",
        "fingerprint",
        "sizes",
        "files",
        "targets",
        "yardsticks",
    }  # dicts whose keys are data
    of_target = len(path) > 2 and path[0] == "targets" and path[-2] == "graphs"
    if len(path) > 1 and (path[-2] in free or path[-3:-1] == ("before", 0) or of_target):
        only_refused_or_faithful(spoiled(drop))
    else:
        with pytest.raises(Refused):
            decode(spoiled(drop))
