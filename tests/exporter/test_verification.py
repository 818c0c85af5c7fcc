"""What a saved report may go on saying of a bundle that changed since."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from exporter.bundle import Bundle
from exporter.latency.subjects import Extras
from exporter.latency.sweep import Sweep
from exporter.verification import report_name, save_report, still_true
from tests.cli_fakes.tool import copied, exported


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
    names = [
        report_name(Extras().kind, both, manifest),
        report_name(Extras(layers=True).kind, both, manifest),
        report_name(Extras(layers=True, sustain_seconds=60.0).kind, both, manifest),
        report_name(Extras(sweep=Sweep({"threads": [1, 2]})).kind, both, manifest),
        report_name(Extras().kind, one, manifest),
        report_name(Extras().kind, both, manifest, "a board"),
    ]
    assert len(set(names)) == len(names)
    for name in names:
        save_report(bundle, name, {"schema": "exporter.profile/1", "subjects": []})
    assert set(Bundle.open(bundle).manifest.reports) == given | set(names)
    save_report(bundle, names[0], {"schema": "exporter.profile/1", "subjects": []})
    assert set(Bundle.open(bundle).manifest.reports) == given | set(names) - {names[4]}, (
        "of all: newer than that of some"
    )
    assert (
        still_true(Bundle.open(bundle).manifest, {one[0]: replace(manifest.targets[one[0]], threads=77)}).reports.keys()
        == given
    )
