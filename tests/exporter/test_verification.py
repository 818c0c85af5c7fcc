"""What a saved report may go on saying of a bundle that changed since."""

from __future__ import annotations

from dataclasses import replace

from exporter.bundle import Bundle
from exporter.verification import still_true
from tests.cli_fakes.tool import exported


def test_a_saved_report_goes_with_the_artifact_it_speaks_of() -> None:
    manifest = Bundle.open(exported()).manifest
    ((key, info),) = manifest.targets.items()
    file = next(iter(manifest.reports.values()))
    saved = replace(manifest, reports={**manifest.reports, "verify": file, "profile": file})
    assert still_true(saved, manifest.targets).reports == saved.reports, "the same artifact again"
    assert still_true(saved, {}).reports == saved.reports, "a target more"
    other = {key: replace(info, files=dict.fromkeys(info.files, "targets/other"))}
    assert still_true(saved, other).reports == manifest.reports, "another artifact: its export's report alone stays"
