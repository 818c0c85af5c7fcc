"""What decides that a stage, or a whole graph, is made anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporter import models, registry
from exporter.cache import key
from exporter.cache.key import digest_of, graph_key, own_samples, surroundings
from exporter.request import Request
from exporter.spec import Sample
from exporter.stages import silent


def test_every_file_of_ours_counts_those_of_equal_names_too(monkeypatch: pytest.MonkeyPatch) -> None:
    found = models.found(Request("mdta", "openvino"), silent)
    files = [path for path in sorted(key.OURS.rglob("*.py")) if path.name in ("__init__.py", "worker.py")]
    assert len(files) > len({path.name for path in files})
    keys, plain = set(), key.sha256
    for changed in files:
        monkeypatch.setattr(key, "sha256", lambda path, it=changed: "other" if path == it else plain(path))
        keys.add(graph_key(found, (), ""))
    assert len(keys) == len(files)


@pytest.mark.parametrize("folder", ["targets", "model_defs/restoration"])
def test_the_code_of_runtimes_and_of_the_definition_counts(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, plain = models.found(Request("restormer", "openvino"), silent), key.sha256
    before = digest_of(surroundings(found, ""))
    for changed in sorted((registry.ROOT / folder).glob("*.py")):
        monkeypatch.setattr(key, "sha256", lambda path, it=changed: "other" if path == it else plain(path))
        assert digest_of(surroundings(found, "")) != before, changed


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr(key, "tool_versions", lambda names: {"torch": "other"}),
        lambda patch: patch.setattr(key, "_processor", lambda: iter(["flags : avx"])),
        lambda patch: patch.setattr(key, "usable_cores", lambda: 77),
        lambda patch: patch.setenv("OMP_NUM_THREADS", "77"),
        lambda patch: patch.setenv("ATEN_CPU_CAPABILITY", "default"),
        lambda patch: patch.setattr(registry, "graph_runners", list),
        lambda patch: patch.setattr(type(registry.graph_runners()[0]), "available", lambda it: _other_version()),
    ],
    ids=["tools", "processor", "cores", "threads", "capability", "no runtime", "runtime"],
)
def test_tools_runtime_and_machine_count(
    change: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = models.found(Request("mdta", "openvino"), silent)
    before = digest_of(surroundings(found, ""))
    assert digest_of(surroundings(found, "")) == before != digest_of(surroundings(found, "other samples"))
    change(monkeypatch)
    assert digest_of(surroundings(found, "")) != before


def _other_version() -> object:
    from exporter.target import Availability

    return Availability(True, "0.0.1")


def test_what_the_processor_does_at_the_moment_does_not_count() -> None:
    lines = list(key._processor())
    assert lines and not [line for line in lines if "MHz" in line]


def test_the_definitions_own_real_inputs_count() -> None:
    """They lie where ``EXPORTER_DATA`` says, on one day and not on another."""
    plain = registry.model("mdta")

    def samples(*values: float) -> Callable[[], list[Sample]]:
        return lambda: [Sample(f"s{index}", {"x": np.float32([value])}) for index, value in enumerate(values)]

    def broken() -> list[Sample]:
        raise OSError("no such recording")

    definitions = [plain, *(replace(plain, samples=samples(*values)) for values in [(), (1.0,), (2.0,), (1.0, 1.0)])]
    keys = [own_samples(definition) for definition in definitions]
    assert keys[0] == keys[1] and len(set(keys)) == 4
    unknown = replace(plain, samples=broken)
    assert own_samples(unknown) != own_samples(unknown), "what cannot be told is never the same"


OWN = """
import torch
from helper import width

def net():
    net = torch.nn.Linear(4, width)
    net.load_state_dict(torch.load({weights!r}, weights_only=True))
    return net, torch.zeros(2, 4)
"""


def test_of_a_users_own_model_code_weights_and_libraries_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its code reads the weights from nobody knows: the weights themselves count."""
    import torch

    file, weights, net = tmp_path / "own.py", tmp_path / "weights.pt", torch.nn.Linear(4, 3)
    file.write_text(OWN.format(weights=str(weights)))
    (tmp_path / "helper.py").write_text("width = 3")
    torch.save(net.state_dict(), weights)

    def keys() -> tuple[str, str]:
        found = models.found(Request(f"{file}:net", "openvino"), silent)
        return graph_key(found, (), ""), digest_of(surroundings(found, ""))

    seen = [keys()]
    assert keys() == seen[0]
    with torch.no_grad():
        net.bias[0] += 1.0
    torch.save(net.state_dict(), weights)
    seen.append(keys())
    (tmp_path / "helper.py").write_text("width = 3  # as before")
    seen.append(keys())
    found = models.found(Request(f"{file}:net", "openvino"), silent)
    before = digest_of(surroundings(found, ""))
    file.write_text(file.read_text() + "# edited while it is exported")
    assert digest_of(surroundings(found, "")) != before
    seen.append(keys())
    monkeypatch.setattr(key, "distributions", list)
    seen.append(keys())
    assert len(set(seen)) == len({one for one, _ in seen}) == 5


def test_external_data_of_an_onnx_file_counts(tmp_path: Path) -> None:
    """The file stays as it is, to the byte, while its weights are exchanged."""
    import onnx
    from onnx import helper, numpy_helper

    shape = [("x", [2, 4]), ("y", [2, 3])]
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes) for name, sizes in shape)
    found = []
    for factor in (1.0, 2.0):
        weight = numpy_helper.from_array(np.full((4, 3), factor, np.float32), "w")
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        (tmp_path / "w.bin").unlink(missing_ok=True)
        onnx.save(model, str(tmp_path / "g.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
        it = models.found(Request(str(tmp_path / "g.onnx"), "openvino"), silent)
        found.append((key.sha256(tmp_path / "g.onnx"), graph_key(it, (), "")))
    assert found[0][0] == found[1][0] and found[0][1] != found[1][1]


def test_a_joined_packages_every_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "strangers_models"
    (package / "blocks").mkdir(parents=True)
    files = [package / "__init__.py", package / "nets.py", package / "blocks" / "__init__.py"]
    for file in files:
        file.write_text("")
    (tmp_path / "strangers_alone.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert registry._package_sources("strangers_models.nets") == sorted(files)
    assert registry._package_sources("strangers_alone") == [tmp_path / "strangers_alone.py"]


def test_the_order_of_a_mapping_does_not_count() -> None:
    one: Mapping[str, int] = {"a": 1, "b": 2}
    assert digest_of(one) == digest_of(dict(reversed(one.items()))) != digest_of({"a": 2, "b": 1})
