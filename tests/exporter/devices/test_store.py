"""What a device holds of bundles: nothing twice, nothing half, nothing for ever."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.bundle import Bundle
from exporter.devices import shipping, store
from exporter.devices.shipping import Shipment
from exporter.devices.store import Store
from exporter.errors import Refused
from tests.cli_fakes.tool import exported

ID = "0" * 64


@pytest.fixture(scope="module")
def shipment() -> Shipment:
    bundle = Bundle.open(exported("tiny", "mobile"))
    return shipping.to_verify(bundle, ["mobile/fp32"])


def copied(shipment: Shipment, to: Store, name: str = ID) -> dict[str, int]:
    lacking = to.lacking(name, shipment.encoded, shipment.files)
    for file, offset in lacking.items():
        to.put(file, shipment.path_of(file).read_bytes()[offset:])
    assert to.finish(list(lacking)) == []
    return lacking


def test_everything_once_then_nothing(shipment: Shipment, tmp_path: Path) -> None:
    there = Store(tmp_path)
    assert set(copied(shipment, there)) == set(shipment.files)
    assert copied(shipment, there) == {}
    held = Bundle.open(there.bundle)
    for name in shipment.files:
        assert held.read(name) == shipment.path_of(name).read_bytes()
    assert not list((tmp_path / "partial").iterdir())


def test_a_copy_that_was_cut_goes_on(shipment: Shipment, tmp_path: Path) -> None:
    file = max(shipment.files, key=shipment.bytes_of)
    there = Store(tmp_path)
    there.lacking(ID, shipment.encoded, shipment.files)
    there.put(file, shipment.path_of(file).read_bytes()[:100])
    assert copied(shipment, Store(tmp_path))[file] == 100


def test_what_comes_damaged_comes_again_whole(shipment: Shipment, tmp_path: Path) -> None:
    file, there = max(shipment.files, key=shipment.bytes_of), Store(tmp_path)
    there.lacking(ID, shipment.encoded, shipment.files)
    there.put(file, b"x" * shipment.bytes_of(file))
    assert there.finish([file]) == [file]
    assert not (there.bundle / "manifest.json").exists(), "a bundle that is not whole is none"
    assert copied(shipment, Store(tmp_path))[file] == 0


def test_more_than_a_file_has_is_no_part_of_it(shipment: Shipment, tmp_path: Path) -> None:
    file, there = min(shipment.files, key=shipment.bytes_of), Store(tmp_path)
    there.lacking(ID, shipment.encoded, shipment.files)
    there.put(file, b"x" * (shipment.bytes_of(file) + 1))
    assert copied(shipment, Store(tmp_path))[file] == 0


def test_another_bundle_with_the_same_files_spares_the_copy(shipment: Shipment, tmp_path: Path) -> None:
    copied(shipment, Store(tmp_path))
    assert copied(shipment, Store(tmp_path), "1" * 64) == {}
    victim = tmp_path / "bundles" / ID / shipment.files[0]
    victim.write_bytes(b"y" * victim.stat().st_size)
    shutil.rmtree(tmp_path / "bundles" / ("1" * 64))
    assert set(copied(shipment, Store(tmp_path), "1" * 64)) == {shipment.files[0]}, "damage is not spread"


def test_a_link_is_no_file(shipment: Shipment, tmp_path: Path) -> None:
    there = Store(tmp_path)
    copied(shipment, there)
    victim = there.bundle / shipment.files[0]
    victim.rename(tmp_path / "elsewhere")
    victim.symlink_to(tmp_path / "elsewhere")
    assert set(copied(shipment, Store(tmp_path))) == {shipment.files[0]}
    assert not victim.is_symlink()


def test_names_are_those_of_a_bundle(shipment: Shipment, tmp_path: Path) -> None:
    data = shipment.encoded.replace(shipment.files[0].encode(), b"../../outside")
    with pytest.raises(Refused, match="bad-manifest"):
        Store(tmp_path / "in").lacking(ID, data, ["../../outside"])
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_used_for_a_month_goes(shipment: Shipment, tmp_path: Path) -> None:
    copied(shipment, Store(tmp_path))
    copied(shipment, Store(tmp_path), "1" * 64)
    old = time.time() - store.KEPT_SECONDS - 60
    os.utime(tmp_path / "bundles" / ID, (old, old))
    Store(tmp_path).expire()
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["1" * 64]


def test_what_is_shipped_is_a_bundle_by_every_rule(shipment: Shipment) -> None:
    held = shipment.manifest
    assert set(shipment.files) <= set(held.files) and not held.reports and not held.onnx_tests
    assert all(graph.traced == graph.simplified for graph in held.graphs.values())


def test_a_profile_takes_one_case_and_a_run_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from exporter.latency import subjects

    monkeypatch.setattr(subjects, "FEW", 0)  # its outputs are so few that each counts in those of other cases
    bundle = Bundle.open(exported("tiny", "mobile"))
    timed = shipping.to_profile(bundle, ["mobile/fp32"])
    (case,) = timed.manifest.cases
    assert case.scale == "normal" and [name for name in timed.files if name.startswith("cases/")] == [case.file]
    ran = shipping.to_run(bundle, "mobile/fp32")
    assert {name.split("/")[0] for name in ran.files} == {"targets"} and not ran.manifest.cases
    assert len(ran.encoded) > 0


def test_the_graph_goes_along_where_an_artifact_is_code(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(exported("tiny", "mobile"))
    graphs = {graph.simplified for graph in bundle.manifest.graphs.values()}
    assert not graphs & set(shipping.to_run(bundle, "mobile/fp32").files)
    guarded = type("Guarded", (), {"guarded": frozenset({"engine"})})
    monkeypatch.setattr("exporter.registry.target", lambda name: guarded)
    assert graphs <= set(shipping.to_run(bundle, "mobile/fp32").files)


def test_compiling_takes_a_whole_bundle_apart_from_the_others() -> None:
    bundle = Bundle.open(exported("tiny", "mobile"))
    made = shipping.to_compile(bundle, "mobile/fp32", "f" * 64)
    assert set(made.files) == set(made.manifest.files) and made.name == "f" * 64
    assert replace(made, name="").manifest.cases == bundle.manifest.cases
    absent = shipping.to_compile(bundle, "none/fp32", "f" * 64)
    assert not absent.manifest.targets and not [n for n in absent.files if n.startswith("targets/")]
