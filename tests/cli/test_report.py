"""What ``exporter report`` writes, prints and refuses, with the fakes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from exporter.bundle import Bundle
from tests.cli_fakes.tool import NOISY, copied, exported, quick, run
from tests.exporter.report.bundles import Elements, text_of


def test_a_page_beside_the_bundle_and_its_place_on_stdout(tmp_path: Path) -> None:
    bundle = copied(tmp_path)
    ended = quick("report", bundle, cwd=tmp_path)
    page = tmp_path / "tiny.report.html"
    assert ended.code == 0 and ended.err == "" and ended.out.startswith(f"page  {page}, ")
    shown = text_of(page.read_text(encoding="utf-8"))
    assert "Verdict PASS 3 hops" in shown and "seeded weights (seed 0): noise, not a trained model" in shown
    assert "No latency was measured into this bundle. exporter profile tiny.bundle --save" in shown
    assert quick("report", bundle, cwd=tmp_path).code == 0, "a page of ours is replaced"


def test_json_is_one_object(tmp_path: Path) -> None:
    ended = quick("report", exported(), "-o", tmp_path / "page.html", "--json", cwd=tmp_path)
    page = tmp_path / "page.html"
    assert ended.code == 0 and ended.err == ""
    assert ended.json == {"schema": "exporter.report/1", "page": str(page), "bytes": page.stat().st_size}


def test_a_verdict_that_is_no_pass_is_a_page_all_the_same(tmp_path: Path) -> None:
    bundle = copied(tmp_path)
    assert run("fake-wrong", "tiny", "-o", bundle, "--no-profile", cwd=tmp_path).code == 1
    assert quick("report", bundle, cwd=tmp_path).code == 0
    shown = text_of((tmp_path / "tiny.report.html").read_text(encoding="utf-8"))
    assert "Verdict FAIL" in shown and "FAIL compiled for fake-wrong/fp32" in shown


def test_a_profile_that_is_saved_is_shown_with_its_distribution(tmp_path: Path) -> None:
    bundle = copied(tmp_path)
    ended = run("profile", bundle, "--seconds", 1, "--save", cwd=tmp_path)
    assert ended.code == 0, ended
    assert quick("report", bundle, cwd=tmp_path).code == 0
    page = (tmp_path / "tiny.report.html").read_text(encoding="utf-8")
    assert 'class="median"' in page and ('class="density"' in page or 'class="block"' in page)
    assert "was not kept" not in text_of(page)


@pytest.mark.slow
@pytest.mark.skipif(not NOISY.is_file(), reason="no real recording: EXPORTER_DATA")
def test_an_export_keeps_what_its_artifact_gave_and_verify_keeps_it_again(tmp_path: Path) -> None:
    options = ("--no-profile", "--dim", "T=2:63:200")
    bundle = tmp_path / "gtcrn.bundle"
    shutil.copytree(exported("gtcrn", "mobile", options=options), bundle)
    for _ in range(2):
        assert quick("report", bundle, cwd=tmp_path).code == 0
        page = Elements((tmp_path / "gtcrn.report.html").read_text(encoding="utf-8"))
        shown = [audio["aria-label"] or "" for audio in page.named("audio")]
        assert any(label.startswith("mobile/fp32, sample-") for label in shown), shown
        assert any(label.startswith("given: spec, sample-") for label in shown), shown
        assert run("verify", bundle, "--save", cwd=tmp_path).code == 0
        Bundle.open(bundle).check()


def test_what_somebody_else_wrote_stays(tmp_path: Path) -> None:
    bundle = copied(tmp_path)
    page = tmp_path / "tiny.report.html"
    page.write_text("mine")
    said = quick("report", bundle, cwd=tmp_path).refused("file-exists")
    assert "--replace" in said and page.read_text() == "mine"
    assert quick("report", bundle, "--replace", cwd=tmp_path).code == 0 and page.read_text() != "mine"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nowhere.bundle"], "missing-file"),
        (["."], "not-a-bundle"),
        (["tiny.bundle", "-o", "page.pdf"], "bad-output"),
        (["tiny.bundle", "-o", "nowhere/page.html"], "bad-output"),
        ([], "bad-usage"),
    ],
)
def test_what_cannot_be_reported_is_refused(tmp_path: Path, words: list[str], code: str) -> None:
    copied(tmp_path)
    quick("report", *words, cwd=tmp_path).refused(code)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny.bundle"]


def test_a_report_that_was_changed_is_refused(tmp_path: Path) -> None:
    bundle = copied(tmp_path)
    (file,) = (bundle / "reports").iterdir()
    file.write_bytes(file.read_bytes().replace(b'"PASS"', b'"FAIL"', 1))
    quick("report", bundle, cwd=tmp_path).refused("digest-mismatch")
