"""What one side of a comparison says: read without trust, absent where it does not say it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from exporter.comparison.side import Machine, sided
from exporter.errors import Refused
from exporter.verdict import Verdict
from tests.cli_fakes.tool import exported

RESULT = {"hop": "compiled", "target": "fake", "form": None, "case": "normal", "output": "y", "verdict": "PASS",
          "reason": None, "relative_l2": 1e-7, "noise": 1e-7, "amplification": 1.0, "max_abs": 1e-7, "elements": 8,
          "notes": []}  # fmt: skip


def hop(precision: str = "fp32", **changes: Any) -> dict[str, Any]:
    facts = {"onnx": {"precision": precision, "layers": {precision: 7}, "providers": {}}}
    of = {"asked": precision, "stored": "fp32", "ran": precision}
    value = {"hop": "compiled", "target": "fake", "precision": of, "verdict": "PASS", "reason": None, "worst": None}
    return value | {"facts": facts} | changes


def verified(*hops: dict[str, Any], results: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"schema": "exporter.verify/1", "model": "tiny", "weights": "seeded", "verdict": "PASS",
            "hops": list(hops or [hop()]), "results": [RESULT] if results is None else results}  # fmt: skip


def profiled(median: float = 2.0, cpu: str = "a", **changes: Any) -> dict[str, Any]:
    subject = {"name": "fake", "verdict": "PASS", "reason": None, "median_ms": median, "bytes": 1000, "threads": 2,
               "interval_ms": [0.99 * median, 1.01 * median], "stability": "STABLE", "layers": {"fp32": 7}}  # fmt: skip
    environment = {"cpu": cpu, "usable_cores": 2, "packages": {"numpy": "2.0"}, "devices": {}}
    value = {"schema": "exporter.profile/1", "stability": "STABLE", "noise_floor": 1.01, "environment": environment}
    return value | {"subjects": [{**subject, "name": "eager"}, subject | changes]}


def written(folder: Path, value: Any, name: str = "report.json") -> str:
    path = folder / name
    path.write_text(json.dumps(value), encoding="utf-8")
    return str(path)


def test_a_bundle_says_what_its_export_found() -> None:
    side = sided(str(exported()))
    assert side.model == "tiny" and side.weights.startswith("seeded weights") and side.bundle is not None
    assert ("compiled", "fake-good", "fp32") in side.hops and ("traced", "", "") in side.hops
    assert all(one.verdict is Verdict.PASS and one.results for one in side.hops.values())
    assert side.sizes["fake-good/fp32"] > 0 and "python" in side.versions
    assert side.facts["weights"] and not side.timings, "it was exported without a profile"


def test_a_report_of_a_bundle_is_named_after_it() -> None:
    path = exported()
    side = sided(f"{path}@export-fake-good-fp32")
    assert side.model == "tiny" and side.hops == sided(str(path)).hops
    with pytest.raises(Refused, match="holds no report 'profiel'") as refused:
        sided(f"{path}@profiel")
    assert refused.value.code == "unknown-report" and "export-fake-good-fp32" in refused.value.why


def test_a_folder_whose_name_has_an_at_is_a_folder(tmp_path: Path) -> None:
    copy = shutil.copytree(exported(), tmp_path / "tiny@main")
    assert sided(str(copy)).bundle is not None


def test_a_file_of_json_is_a_side(tmp_path: Path) -> None:
    side = sided(written(tmp_path, verified()))
    (one,) = side.hops.values()
    assert one.results[0].relative_l2 == 1e-7 and side.layers == {"fake": {"fp32": 7}}
    side = sided(written(tmp_path, profiled()))
    assert set(side.timings) == {"fake"}, "eager is what artifacts are compared with, and none itself"
    timing = side.timings["fake"]
    assert timing.median is not None and timing.median.value == 2.0 and timing.machine == Machine("a", 2)
    assert side.sizes == {"fake": 1000} and side.versions == {"numpy": "2.0"}
    both = {"schema": "exporter.export/1", "verify": verified(), "profile": profiled()}
    side = sided(written(tmp_path, both))
    assert side.hops and side.timings


def test_another_device_is_part_of_what_timings_belong_to(tmp_path: Path) -> None:
    there = profiled() | {"device": {"address": "ssh://pi", "label": "pi"}}
    machine = sided(written(tmp_path, there)).timings["fake"].machine
    assert machine != sided(written(tmp_path, profiled(), "here.json")).timings["fake"].machine
    assert str(machine) == "a, 2 cores, pi"


def test_machines_without_a_name_are_not_known_to_be_one() -> None:
    assert Machine("a", 4).is_surely(Machine("a", 4)) and Machine("", 4, ("pi",)).is_surely(Machine("", 4, ("pi",)))
    assert not Machine("", 4).is_surely(Machine("", 4)) and not Machine("a", 4).is_surely(Machine("b", 4))


def test_where_it_was_verified_is_part_of_what_errors_belong_to(tmp_path: Path) -> None:
    assert sided(written(tmp_path, verified() | {"device": {"label": "pi"}})).device == "pi"
    assert sided(written(tmp_path, verified())).device == ""


def test_results_belong_to_the_hop_of_their_precision(tmp_path: Path) -> None:
    low = RESULT | {"precision": "bf16", "relative_l2": 1e-3}
    value = verified(hop(), hop("bf16"), results=[low, RESULT | {"precision": "fp32"}])
    side = sided(written(tmp_path, value))
    assert side.hops["compiled", "fake", "bf16"].results[0].relative_l2 == 1e-3
    assert side.hops["compiled", "fake", "fp32"].results[0].relative_l2 == 1e-7


def test_what_only_repeats_a_verdict_does_not_hide_what_was_compared(tmp_path: Path) -> None:
    """The second target of a bundle repeats the graph's verdict, and the numbers are in the first one's report."""
    first, second = verified(), verified(results=[])
    assert not sided(written(tmp_path, second)).hops["compiled", "fake", "fp32"].results
    value = {"schema": "exporter.export/1", "verify": verified(hop(), hop()), "profile": None}
    assert (
        sided(written(tmp_path, value | {"verify": {**first, "hops": [hop(), hop()]}}))
        .hops["compiled", "fake", "fp32"]
        .results
    )


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", '{"schema": "other/1"}', '{"schema": 3}', '{"schema": "exporter.run/1"}', "[" * 40 + "]" * 40,
     '{"schema": "exporter.verify/1", "schema": "exporter.verify/1"}'],
)  # fmt: skip
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "it.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Refused) as refused:
        sided(str(path))
    assert refused.value.code == "bad-report" and str(path) in refused.value.where


@pytest.mark.parametrize(
    "changes",
    [{"median_ms": "fast"}, {"median_ms": -1}, {"interval_ms": [3, 1]}, {"interval_ms": None}, {"median_ms": True}],
)
def test_a_figure_that_cannot_be_one_is_absent(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert sided(written(tmp_path, profiled(**changes))).timings["fake"].median is None


def test_a_verdict_that_is_no_word_is_no_success(tmp_path: Path) -> None:
    side = sided(written(tmp_path, verified(hop(verdict="GOOD"))))
    assert [one.verdict for one in side.hops.values()] == [Verdict.INVALID]


def test_a_target_that_a_bundle_no_longer_holds_is_not_spoken_of(tmp_path: Path) -> None:
    """A report outlives the artifact it is about only in files."""
    copy = Path(shutil.copytree(exported(), tmp_path / "tiny.bundle"))
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    manifest["targets"] = {}
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    side = sided(str(copy))
    assert not [key for key in side.hops if key[1]] and ("traced", "", "") in side.hops
