"""What a saved report may go on saying of a bundle that changed since."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.bundle import Bundle, editing
from exporter.comparison.side import sided
from exporter.errors import Refused
from exporter.isolate import Limits
from exporter.latency.subjects import Extras
from exporter.latency.sweep import Sweep
from exporter.manifest.identity import artifacts_of
from exporter.pipeline import compile_bundle
from exporter.report.collect import collected
from exporter.saved import report_name, save_report, still_true
from exporter.verdict import Verdict
from tests.cli_fakes.tool import copied, exported

EMPTY = {"schema": "exporter.profile/1", "subjects": []}


def test_a_saved_report_goes_with_the_artifact_it_speaks_of() -> None:
    manifest = Bundle.open(exported()).manifest
    ((key, info),) = manifest.targets.items()
    file = next(iter(manifest.reports.values()))
    saved = replace(manifest, reports={**manifest.reports, "verify": file, "profile": file})
    assert still_true(saved, manifest.targets).reports == saved.reports, "the same artifact again"
    assert still_true(saved, {}).reports == saved.reports, "a target more"
    other = {key: replace(info, files=dict.fromkeys(info.files, "targets/other"))}
    assert still_true(saved, other).reports == manifest.reports, "another artifact: its export's report alone stays"


def test_a_report_that_tells_something_else_is_kept_beside_the_one_before(tmp_path: Path) -> None:
    bundle = copied(tmp_path, "tiny", "openvino", "mobile")
    manifest = Bundle.open(bundle).manifest
    both, one = list(manifest.targets), list(manifest.targets)[:1]
    given = set(manifest.reports)
    asked: list[tuple[str, Sequence[str], str]] = [
        (Extras().kind, both, ""),
        (Extras(layers=True).kind, both, ""),
        (Extras(layers=True, sustain_seconds=60.0).kind, both, ""),
        (Extras(sweep=Sweep({"threads": [1, 2]})).kind, both, ""),
        (Extras().kind, one, ""),
        (Extras().kind, both, "a board"),
    ]
    names = [report_name(kind, keys, manifest, device) for kind, keys, device in asked]
    assert len(set(names)) == len(names)
    for kind, keys, device in asked:
        save_report(bundle, kind, keys, manifest, EMPTY, device)
    assert set(Bundle.open(bundle).manifest.reports) == given | set(names)
    save_report(bundle, asked[0][0], both, manifest, EMPTY)
    assert set(Bundle.open(bundle).manifest.reports) == given | set(names) - {names[4]}, (
        "of all: newer than that of some"
    )
    assert (
        still_true(Bundle.open(bundle).manifest, {one[0]: replace(manifest.targets[one[0]], threads=77)}).reports.keys()
        == given
    )


# ------------------------------------------------------------------------------------- which of two is believed


@pytest.fixture
def three(tmp_path: Path) -> Path:
    return copied(tmp_path, "tiny", "openvino", "mobile", "fake-good")


def said(verdicts: Mapping[str, str]) -> dict[str, Any]:
    """A verification with these verdicts, by the artifact's key."""
    hops = [
        {"hop": "compiled", "target": key.partition("/")[0], "precision": {"asked": "fp32"}, "verdict": verdict,
         "reason": "it was so"}
        for key, verdict in verdicts.items()
    ]  # fmt: skip
    return {"schema": "exporter.verify/1", "model": "tiny", "hops": hops, "results": []}


def save(bundle: Path, verdicts: Mapping[str, str]) -> None:
    save_report(bundle, "verify", list(verdicts), Bundle.open(bundle).manifest, said(verdicts))


def shown(bundle: Path) -> dict[str, str]:
    """What the page and a comparison believe of each artifact; they never differ."""
    page = {judged.artifact: judged.hop.verdict for judged in collected(Bundle.open(bundle)).hops if judged.hop.target}
    side = {f"{target}/{precision}": hop.verdict for (_, target, precision), hop in sided(str(bundle)).hops.items()
            if target}  # fmt: skip
    assert page == side
    return {key: verdict.value for key, verdict in page.items()}


def test_what_was_saved_last_is_believed_whatever_it_is_called(three: Path) -> None:
    save(three, {"openvino/fp32": "PASS"})
    save(three, {"mobile/fp32": "PASS", "openvino/fp32": "FAIL"})
    assert shown(three) == {"fake-good/fp32": "PASS", "mobile/fp32": "PASS", "openvino/fp32": "FAIL"}
    save(three, {"openvino/fp32": "PASS"})
    assert shown(three)["openvino/fp32"] == "PASS"
    save(three, {"mobile/fp32": "PASS", "openvino/fp32": "PASS"})
    save(three, {"fake-good/fp32": "PASS", "openvino/fp32": "FAIL"})
    assert shown(three)["openvino/fp32"] == "FAIL", "by name it comes first"


def test_a_report_goes_only_where_a_newer_one_tells_all_that_it_told(three: Path) -> None:
    save(three, {"mobile/fp32": "PASS", "openvino/fp32": "FAIL"})
    save(three, {"mobile/fp32": "PASS"})
    assert shown(three)["openvino/fp32"] == "FAIL", "a report of two is not one of the first"
    save(three, {"mobile/fp32": "PASS", "openvino/fp32": "PASS"})
    names = {name for name in Bundle.open(three).manifest.reports if name.startswith("verify")}
    assert names == {"verify+mobile-fp32+openvino-fp32"}


def test_a_damaged_report_does_not_stand_in_the_way_of_the_next(three: Path) -> None:
    save(three, {"openvino/fp32": "PASS"})
    Bundle.open(three).file(Bundle.open(three).manifest.reports["verify+openvino-fp32"]).write_text("{")
    save(three, {"openvino/fp32": "FAIL"})
    assert shown(three)["openvino/fp32"] == "FAIL"


@pytest.mark.parametrize("number", [2**31 - 1, 2**31, 10**40, 7.5, "9", True, -1, 1000])
def test_what_a_stranger_numbered_is_never_newer_than_what_is_saved_now(three: Path, number: Any) -> None:
    with editing(three, "a test") as draft:
        assert draft.old is not None
        forged = json.dumps({**said({"openvino/fp32": "PASS"}), "saved": number}).encode()
        reports = draft.old.manifest.reports | {"zzz": draft.write("reports/zzz.json", forged)}
        draft.derived("USE.md", "")
        draft.commit(replace(draft.old.manifest, reports=reports))
    save(three, {"openvino/fp32": "FAIL"})
    assert shown(three) == {"fake-good/fp32": "PASS", "mobile/fp32": "PASS", "openvino/fp32": "FAIL"}
    save(three, {"openvino/fp32": "FAIL", "mobile/fp32": "PASS"})
    assert shown(three)["openvino/fp32"] == "FAIL"


# ------------------------------------------------------------------------------------- artifacts that are others now


def replaced(bundle: Path, key: str) -> None:
    """Another artifact in the place of one, as a compile elsewhere leaves it."""
    with editing(bundle, "a test") as draft:
        assert draft.old is not None
        manifest = draft.old.manifest
        other = replace(manifest.targets[key], fingerprint={"made": "elsewhere"})
        draft.derived("USE.md", "")
        draft.commit(replace(manifest, targets=manifest.targets | {key: other}))


def test_what_is_replaced_meanwhile_is_not_what_was_judged(three: Path) -> None:
    judged = Bundle.open(three).manifest
    replaced(three, "openvino/fp32")
    before = Bundle.open(three).manifest
    with pytest.raises(Refused, match="openvino/fp32 was replaced") as refused:
        save_report(three, "verify", ["openvino/fp32"], judged, said({"openvino/fp32": "PASS"}))
    assert refused.value.code == "other-artifact" and Bundle.open(three).manifest == before
    save_report(three, "verify", ["mobile/fp32"], judged, said({"mobile/fp32": "PASS"}))


def test_of_another_artifact_an_older_report_says_nothing(three: Path) -> None:
    assert shown(three)["openvino/fp32"] == "PASS", "its export said so"
    replaced(three, "openvino/fp32")
    page = collected(Bundle.open(three))
    assert "openvino/fp32" not in shown(three) and page.missing == ("openvino/fp32",)
    assert page.verdict is not Verdict.PASS
    assert shown(three) == {"fake-good/fp32": "PASS", "mobile/fp32": "PASS"}


def test_a_compile_leaves_what_it_found(three: Path) -> None:
    replaced(three, "mobile/fp32")
    compile_bundle(three, "mobile", "fp32", Limits(seconds=300))
    assert shown(three)["mobile/fp32"] == "PASS"
    report = json.loads(Bundle.open(three).file(Bundle.open(three).manifest.reports["verify+mobile-fp32"]).read_text())
    assert report["schema"] == "exporter.verify/1" and report["artifacts"].keys() == {"mobile/fp32"}


def test_the_digest_of_an_artifact_is_that_of_its_object_in_the_manifest() -> None:
    bundle = Bundle.open(exported("tiny", "openvino", "mobile", "fake-good"))
    objects = json.loads((bundle.path / "manifest.json").read_text())["targets"]
    assert artifacts_of(bundle.manifest, objects.keys()) == {
        key: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest() for key, value in objects.items()
    }


def test_what_the_artifact_before_gave_is_not_kept_for_the_next(three: Path) -> None:
    with editing(three, "a test") as draft:
        assert draft.old is not None
        reports = draft.old.manifest.reports
        stale = {"previews-mobile-fp32": draft.write("reports/previews-mobile-fp32.safetensors", b"of another")}
        draft.derived("USE.md", "")
        draft.commit(replace(draft.old.manifest, reports=reports | stale))
    compile_bundle(three, "mobile", "fp32", Limits(seconds=300))
    assert "previews-mobile-fp32" not in Bundle.open(three).manifest.reports
