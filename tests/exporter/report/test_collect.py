"""From reports to values: which report counts, what is of which hop, what lies in them is not trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exporter.errors import Refused
from exporter.report.collect import collected, judged_in
from exporter.report.ladder import bound_of
from exporter.report.reading import Fields
from exporter.verdict import Hop, Precision, Verdict
from tests.exporter.report.bundles import export, hops, profile, published, result, subject, verification


def test_an_export_gives_hops_profiles_and_stages(tmp_path: Path) -> None:
    page = collected(published(tmp_path / "b"))
    assert [judged.key for judged in page.hops] == [("traced", "", "fp32"), ("compiled", "some", "fp32")]
    assert page.missing == ("some/int8",) and page.verdict is Verdict.SKIPPED
    (profiled,) = page.profiles
    assert [timing.median for timing in profiled.timings] == [4.0, 1.0]
    assert profiled.machine == "A Processor, 2 cores, Linux 6"
    assert [stage.text("stage") for stage in page.stages["export-some-fp32"]] == ["trace"]


def test_what_was_verified_again_replaces_what_the_export_found(tmp_path: Path) -> None:
    worse = [Hop("compiled", "some", Verdict.FAIL, "it is off", Precision("fp32", "fp32", "fp32"))]
    page = collected(published(tmp_path / "b", {"verify": verification(worse), "export-some-fp32": export()}))
    compiled = page.hops[-1]
    assert compiled.hop.verdict is Verdict.FAIL and compiled.report == "verify" and page.verdict is Verdict.FAIL


def test_what_was_verified_on_a_device_stands_beside_what_was_found_here(tmp_path: Path) -> None:
    there = verification([Hop("compiled", "some", Verdict.FAIL, "it is off", Precision("fp32", "fp32", "fp32"))])
    reports = {"export-some-fp32": export(), "verify-board": there | {"device": {"label": "a board"}}}
    page = collected(published(tmp_path / "b", reports))
    assert [(j.device, j.hop.verdict) for j in page.hops if j.hop.hop == "compiled"] == [
        ("", Verdict.PASS), ("a board", Verdict.FAIL),
    ]  # fmt: skip
    assert page.verdict is Verdict.FAIL and page.hops[-1].title == "compiled for some/fp32, on a board"
    brought = profile() | {"device": {"label": "a board", "address": "ssh://u@b"}}
    (profiled,) = collected(published(tmp_path / "c", {"profile-board": brought})).profiles
    assert profiled.machine == "a board"


def test_a_look_at_layers_stands_beside_the_profile_before(tmp_path: Path) -> None:
    layered = profile(subject("some", 1.0, layer_times=[{"ms": 1.0}]))
    reports = {"profile": profile(), "profile.layers": layered, "profile+some-fp32": profile(subject("some", 1.0))}
    page = collected(published(tmp_path / "b", reports))
    assert [profiled.report for profiled in page.profiles] == ["profile", "profile.layers"]


def test_a_hop_that_is_only_recorded_again_keeps_what_was_compared(tmp_path: Path) -> None:
    recorded = verification([Hop("traced", None, Verdict.PASS, None, Precision("fp32", "fp32", "fp32"))])
    reports = {"export-some-fp32": export(), "export-some-int8": export(verify=recorded)}
    traced = collected(published(tmp_path / "b", reports)).hops[0]
    assert traced.hop.results and traced.report == "export-some-fp32"


def test_results_of_two_precisions_of_a_target_are_told_apart_in_new_and_in_old_reports() -> None:
    found = [
        Hop(
            "compiled",
            "some",
            Verdict.PASS,
            None,
            Precision(asked, asked, asked),
            (result("compiled", "some", "opt", e),),
        )
        for asked, e in (("fp32", 1e-7), ("bf16", 1e-3))
    ]
    value = verification(found)
    older: dict[str, Any] = value | {
        "results": [{k: v for k, v in each.items() if k != "precision"} for each in value["results"]]
    }
    for each in (value, older):
        errors = [judged.hop.results[0].relative_l2 for judged in judged_in("verify", Fields(each))]
        assert errors == [1e-7, 1e-3]


def test_a_target_that_left_the_bundle_is_not_shown(tmp_path: Path) -> None:
    page = collected(published(tmp_path / "b", targets={}))
    assert [judged.key[0] for judged in page.hops] == ["traced"] and page.missing == ()


def test_each_machine_stands_once_and_a_saved_profile_before_an_exports(tmp_path: Path) -> None:
    saved = profile(subject("eager", 3.9), subject("some", 0.9))
    other = profile(subject("some", 7.0), cpu="A Board")
    reports = {"export-some-fp32": export(), "profile": saved, "profile-there": other}
    found = collected(published(tmp_path / "b", reports)).profiles
    assert [(p.report, p.machine.partition(",")[0]) for p in found] == [
        ("profile", "A Processor"), ("profile-there", "A Board"),
    ]  # fmt: skip


def test_every_timing_gives_the_same_distribution_as_was_kept_of_it() -> None:
    from exporter.report.timings import profiled

    raw = {"warm_ns": [], "blocks": [{"calls": 3, "ns": [1000, 2000, 3000]}, {"calls": 4, "ns": [8000]}]}
    each = {k: v for k, v in subject("some", 1.0, raw=raw).items() if k != "distribution"}
    (timing,) = profiled("profile", Fields(profile(each))).timings
    assert timing.blocks == pytest.approx((0.002, 0.002))
    assert len(timing.quantiles) == 101 and timing.quantiles[50] == pytest.approx(0.002)


def test_the_bound_is_the_rungs_and_unknown_where_no_rung_was_kept(tmp_path: Path) -> None:
    page = collected(published(tmp_path / "b"))
    judged = page.hops[-1]
    assert bound_of(judged, judged.hop.results[0]) == pytest.approx(4 * 1e-7)
    old = [Hop(hop.hop, hop.target, hop.verdict, None, hop.precision, hop.results) for hop in hops()]
    judged = judged_in("verify", Fields(verification(old)))[-1]
    assert bound_of(judged, judged.hop.results[0]) is None


@pytest.mark.parametrize(
    "value",
    [
        {"schema": "exporter.export/1", "verify": 3, "profile": "x", "stages": {"a": 1}},
        {"schema": "exporter.verify/1", "hops": [1, None, {"hop": 4, "verdict": [], "precision": 7}], "results": "x"},
        {"schema": "exporter.verify/1", "hops": [{"hop": "compiled", "target": "some", "verdict": "GREAT"}]},
        {"schema": "exporter.profile/1", "subjects": [{"median_ms": "fast", "interval_ms": [1]}, 4], "environment": []},
        {"schema": "exporter.profile/1", "subjects": [{"median_ms": 1e999, "raw": {"blocks": [{"ns": ["x"]}]}}]},
        {"schema": 7},
        [],
        None,
    ],
)
def test_a_report_that_is_another_shape_says_nothing_and_breaks_nothing(tmp_path: Path, value: Any) -> None:
    from exporter.report.page import document

    page = collected(published(tmp_path / "b", {"odd": value}))
    assert page.verdict is not Verdict.PASS
    document(page)


@pytest.mark.parametrize("data", ["{", "\x00", '{"a": ' * 100_000, '"\\ud800'])
def test_a_report_that_is_no_json_is_refused(tmp_path: Path, data: str) -> None:
    with pytest.raises(Refused) as refused:
        collected(published(tmp_path / "b", {"odd": data}))
    assert refused.value.code == "bad-manifest" and refused.value.next


def test_a_report_that_was_changed_is_refused(tmp_path: Path) -> None:
    bundle = published(tmp_path / "b")
    (file,) = bundle.manifest.reports.values()
    (bundle.path / file).write_bytes((bundle.path / file).read_bytes().replace(b"PASS", b"FAIL", 1))
    with pytest.raises(Refused) as refused:
        collected(bundle)
    assert refused.value.code == "digest-mismatch"
