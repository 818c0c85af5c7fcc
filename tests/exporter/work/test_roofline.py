"""How far a layer is from what a machine can do: pure arithmetic on figures that are given."""

from __future__ import annotations

import pytest

from exporter.latency.layered import beyond, layered
from exporter.work import Work
from exporter.work.roofline import COMPUTE, MEMORY, OWN, Load, Peaks, load_of, shares, users_of

PEAKS = Peaks({"fp32": 100.0, "int8": 400.0}, {1 << 20: 50.0, 1 << 28: 10.0}, 2)
# x -> conv -> a -> relu -> b -> add(b, x) -> y
CHAIN = {
    "conv": Work("Conv", 1000, "net.stem.conv", {"x": 400, "w": 36}, {"a": 800}),
    "relu": Work("Relu", 0, "net.stem.act", {"a": 800}, {"b": 800}),
    "add": Work("Add", 0, "", {"b": 800, "x": 400}, {"y": 800}),
}


def load(*nodes: str, ns: float = 10.0, precision: str = "fp32") -> Load:
    return load_of(nodes, ns, precision, CHAIN, users_of(CHAIN))


def test_a_multiplication_is_two_operations_and_every_tensor_counts_once() -> None:
    assert load("conv") == Load(2000, 400 + 36 + 800, 10.0, "Conv", "net/stem")
    assert load("add").bytes == 800 + 400 + 800


def test_what_stays_between_the_nodes_of_a_layer_is_no_traffic() -> None:
    fused = load("conv", "relu")
    assert (fused.flops, fused.bytes, fused.operator) == (2000, 400 + 36 + 800, "Conv+Relu")
    whole = load("conv", "relu", "add")
    assert whole.bytes == 400 + 36 + 800, "the output of the graph is written, though nobody in it reads it"


def test_a_value_that_others_read_too_is_written() -> None:
    work = {**CHAIN, "more": Work("Neg", 0, "", {"a": 800}, {"z": 800})}
    assert load_of(("conv", "relu"), 10.0, "fp32", work, users_of(work)).bytes == 400 + 36 + 800 + 800


def test_a_layer_with_a_node_nobody_counted_has_no_known_traffic() -> None:
    assert load("conv", "strange").bytes is None and load("conv", "strange").flops == 2000
    assert load("strange") == Load(0, None, 10.0, OWN, OWN)


def test_a_lower_precision_moves_less_and_is_held_to_its_own_peak() -> None:
    half = load("conv", precision="bf16")
    assert half.bytes == (400 + 36 + 800) // 2 and half.limit(PEAKS) is None, "nobody measured bf16"
    quarter = load("conv", precision="int8")
    assert quarter.bytes == (400 + 36 + 800) // 4 and quarter.limit(PEAKS) == (309 / 50.0, MEMORY)
    assert Load(10_000, 100, 200.0, precision="int8").limit(PEAKS) == (25.0, COMPUTE)
    assert load("relu", precision="bf16").limit(PEAKS) == (800 / 50.0, MEMORY)


def test_another_shape_of_the_same_bytes_moves_nothing_by_itself() -> None:
    work = {**CHAIN, "flat": Work("Reshape", 0, "", {"y": 800}, {"z": 800})}
    users = users_of(work)
    alone = load_of(("flat",), 10.0, "fp32", work, users)
    assert alone.bytes == 0 and alone.limit(PEAKS) is None and alone.gbs is None
    assert load_of(("add", "flat"), 10.0, "fp32", work, users).bytes == 800 + 400 + 800


def test_a_layer_beyond_its_limit_counts_with_what_it_took() -> None:
    layers = [{"name": "add", "kind": "Add", "nodes": ["add"], "ns": 10.0, "precision": "fp32"}]
    found = layered(layers, CHAIN, {}, 20.0, PEAKS)
    assert found["layer_times"][0]["of_limit"] == 4.0, "2000 bytes at 50 GB/s take 40 ns"
    assert found["roofline"]["of_limit"] == 0.5


def test_what_takes_longer_binds() -> None:
    assert Load(10_000, 100, 200.0).limit(PEAKS) == (100.0, COMPUTE)
    assert Load(100, 1000, 40.0).limit(PEAKS) == (20.0, MEMORY)
    assert Load(100, 1000, 40.0).as_json(PEAKS)["of_limit"] == 0.5
    assert Load(0, None, 40.0).limit(PEAKS) is None


def test_what_fits_no_cache_is_held_to_the_speed_of_memory() -> None:
    assert PEAKS.speed(1 << 20) == 50.0 and PEAKS.speed((1 << 20) + 1) == 10.0 and PEAKS.speed(1 << 40) == 10.0


def test_shares_are_of_the_time_of_all() -> None:
    loads = [load("conv", ns=60), load("relu", ns=30), load("strange", ns=10)]
    assert shares(loads, lambda one: one.operator) == {"Conv": 0.6, "Relu": 0.3, OWN: 0.1}


def test_the_whole_counts_each_layer_as_often_as_its_graph_runs() -> None:
    work = {
        "once.mul": Work("MatMul", 500, "a", {"once.x": 100}, {"once.y": 100}),
        "loop.mul": Work("MatMul", 500, "b", {"loop.x": 100}, {"loop.y": 100}),
    }
    layers = [
        {"name": name, "kind": "MatMul", "nodes": [name], "ns": 20.0, "precision": "fp32"} for name in work
    ]  # fmt: skip
    found = layered(layers, work, {"once": 1, "loop": 4}, 200.0, PEAKS)
    assert found["shares"]["module"] == {"b": 0.8, "a": 0.2}
    assert [(row["name"], row["runs"]) for row in found["layer_times"]] == [("loop.mul", 4), ("once.mul", 1)]
    whole = found["roofline"]
    assert (whole["flops"], whole["bytes"], whole["gflops"]) == (5000, 1000, 25.0)
    assert whole["of_limit"] == pytest.approx(5 * 10.0 / 200.0) and whole["bound"] == COMPUTE


def test_without_counts_only_the_times_are_told() -> None:
    layers = [{"name": "l", "kind": "Reorder", "nodes": [], "ns": 2e6, "precision": ""}]
    found = layered(layers, {}, {"net": 1}, 2e6, PEAKS)
    assert "roofline" not in found and found["layer_times"][0]["ms"] == 2.0
    assert found["layer_times"][0]["of_limit"] is None


def test_peaks_that_a_layer_exceeds_were_not_the_machines() -> None:
    layers = [{"name": "l", "kind": "Conv", "nodes": ["conv"], "ns": 18.0, "precision": "fp32"}]
    assert not beyond(layers, CHAIN, PEAKS), "111 GFLOP/s: a runtime may be a little better"
    assert beyond([{**layers[0], "ns": 17.0}], CHAIN, PEAKS) == ["l"]
    assert not beyond([{**layers[0], "ns": 17.0, "precision": "bf16"}], CHAIN, PEAKS), "no peak of it was measured"
    assert beyond([{**layers[0], "ns": 4.0, "precision": "int8"}], CHAIN, PEAKS) == ["l"]
    assert not beyond([{**layers[0], "ns": 5.0, "precision": "int8"}], CHAIN, PEAKS)
