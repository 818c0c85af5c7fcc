"""What ONNX Runtime's own programs print on a phone, read as their sources write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from exporter.bundle import Bundle
from exporter.errors import Refused
from exporter.latency.imported import imported
from exporter.report import html
from targets._mobile import imported as printed
from tests.cli_fakes.tool import copied, exported, quick, run
from tests.exporter.report.bundles import text_of

RUNS = "".join(f"tiny,{0.001 + 0.0001 * (n % 3)},52428800,97,{n}\n" for n in range(300))
FIGURES = "\nMin Latency: 0.001 s\nMax Latency: 0.0012 s\nP50 Latency: 0.0011 s\n"
SAID = (
    "Setting intra_op_num_threads to 4\nSession creation time cost: 0.0215 s\nFirst inference time cost: 3 ms\n"
    "Total inference requests: 300\nAvg CPU usage: 97 %\nPeak working set size: 52428800 bytes\n"
)
COMPARED = (
    "result: \n\tModels: 1\n\tTotal test cases: 3\n\t\tSucceeded: 3\n\t\tNot implemented: 0\n\t\tFailed: 0\n"
    "\tStats by Operator type:\n\t\tNot implemented(0): \n\t\tFailed:\nFailed Test Cases:\n"
)
UNABLE = COMPARED.replace("Succeeded: 3", "Succeeded: 2").replace("implemented: 0", "implemented: 1")
WRONG = COMPARED.replace("Succeeded: 3", "Succeeded: 2").replace("\t\tFailed: 0\n", "\t\tFailed: 1\n")


def files(folder: Path, *texts: str) -> list[Path]:
    paths = [folder / f"{number}.txt" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths


def test_a_record_of_calls() -> None:
    found = printed.imported(RUNS + FIGURES)
    assert found is not None and len(found.calls_ns) == 300 and found.calls_ns[1] == pytest.approx(1.1e6)
    assert found.peak_rss_bytes == 52428800 and found.right == found.wrong == 0
    assert printed.imported((RUNS + FIGURES).replace("\n", "\r\n")) == found


def test_what_the_program_says_and_what_was_compared() -> None:
    said = printed.imported(SAID)
    assert said is not None and (said.load_ns, said.first_ns) == (pytest.approx(21.5e6), 3e6)
    compared, wrong = printed.imported(COMPARED), printed.imported(WRONG)
    assert compared is not None and (compared.right, compared.wrong) == (3, 0)
    assert wrong is not None and (wrong.right, wrong.wrong) == (2, 1)
    left = printed.imported(
        COMPARED.replace("Succeeded: 3", "Succeeded: 2").replace("implemented: 0", "implemented: 1")
    )
    assert left is not None and (left.right, left.wrong, left.unanswered) == (2, 0, 1)


@pytest.mark.parametrize(
    "text",
    [
        "", "hello\n", "a,b\n", "\0\0\0", RUNS + RUNS, RUNS.replace("tiny,0.001,", "tiny,nan,"),
        RUNS.replace("tiny,0.001,", "tiny,-1,"), RUNS.replace("tiny,0.001,", "other,0.001,", 1),
        "tiny,1e300,1,1,0\n", "tiny,1e-320,1,1,0\n", "Session creation time cost: 1e300 s\n",
        "tiny,0.001,1,1,7\n", COMPARED.replace("Succeeded: 3", "Succeeded: 4"), "Succeeded: 3\n",
        "Session creation time cost: inf s\n", "\0" * 300_000, '"' + "x" * 200_000,
    ],
)  # fmt: skip
def test_what_no_program_of_its_prints(text: str) -> None:
    assert printed.imported(text) is None


def profile(folder: Path, *texts: str) -> dict[str, Any]:
    return imported(exported("tiny", "mobile"), ["mobile"], files(folder, *texts), "Pixel; 8\x1b[2J")


def test_a_profile_under_the_phones_name_never_stable_and_compared_with_nothing(tmp_path: Path) -> None:
    value = profile(tmp_path, RUNS + FIGURES, SAID, COMPARED)
    (subject,) = value["subjects"]
    assert subject["median_ms"] == pytest.approx(1.1) and subject["n"] == 300 and subject["verdict"] == "PASS"
    assert subject["answers"] == {"right": 3, "wrong": 0, "unanswered": 0} and subject["load_ms"] == pytest.approx(21.5)
    assert subject["distribution"]["quantiles_ms"][::50] == pytest.approx([1.0, 1.1, 1.2])
    assert value["stability"] == "NOISY" and value["ratios"] == [] and value["noise_floor"] is None
    assert "\x1b" not in value["device"]["label"] and value["device"]["imported"] == ["0.txt", "1.txt", "2.txt"]
    assert [warning["code"] for warning in value["warnings"]] == ["alone"]


def test_answers_that_nobody_compared_are_told_and_wrong_ones_void_it(tmp_path: Path) -> None:
    assert "unchecked" in [warning["code"] for warning in profile(tmp_path, RUNS)["warnings"]]
    value = profile(tmp_path, RUNS, WRONG)
    assert value["stability"] == "INVALID" and "1 of 3" in value["subjects"][0]["reason"]
    assert value["subjects"][0]["median_ms"] is None, "a figure with wrong answers is none"
    assert profile(tmp_path, RUNS, UNABLE)["subjects"][0]["verdict"] == "UNSUPPORTED"


def test_what_the_runner_says_nothing_of_was_not_answered(tmp_path: Path) -> None:
    for good, left in ((1, 2), (0, 3)):
        value = profile(tmp_path, RUNS, COMPARED.replace("Succeeded: 3", f"Succeeded: {good}"))
        assert value["subjects"][0]["answers"] == {"right": good, "wrong": 0, "unanswered": left}
        assert value["subjects"][0]["verdict"] == "UNSUPPORTED" and value["warnings"][1:] == []


def test_a_few_calls_have_a_median_and_no_interval(tmp_path: Path) -> None:
    few = "".join(f"tiny,0.00{n + 1},1,1,{n}\n" for n in range(3))
    (subject,) = profile(tmp_path, few)["subjects"]
    assert subject["median_ms"] == pytest.approx(2) and subject["interval_ms"] is None
    assert "few-blocks" in json.dumps(subject["reasons"])


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ((SAID,), "no file holds timings"),
        ((RUNS, RUNS), "two files tell of calls_ns"),
        ((RUNS, "?"), "is nothing that"),
        ((RUNS.partition("tiny,0.001,52428800,97,3\n")[0], SAID), "holds 3 calls, and 300 were made"),
    ],
)
def test_files_that_make_no_profile_are_refused(tmp_path: Path, texts: tuple[str, ...], said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        profile(tmp_path, *texts)
    assert refused.value.code == "bad-import"


def test_the_command_saves_it_and_its_page_shows_it(tmp_path: Path) -> None:
    bundle = copied(tmp_path, "tiny", "mobile")
    given = [word for path in files(tmp_path, RUNS, COMPARED) for word in ("--import", path)]
    shown = run("profile", bundle, "--target", "mobile", *given, "--as", "Pixel 8", "--save")
    assert (
        shown.code == 0 and "Pixel 8" in shown.out and "NOISY" in shown.out and "not measured by exporter" in shown.out
    )
    page = run("report", bundle, "-o", tmp_path / "page.html")
    said = text_of((tmp_path / "page.html").read_text())
    assert page.code == 0 and "Pixel 8" in said and "all calls in a row" in said
    assert "interleaved" not in said and "Not measured. The distribution" not in said
    use = (bundle / "USE.md").read_text()
    assert "onnx_test_runner" in use and "onnxruntime_perf_test" in use
    folder = next(iter(bundle.glob("device/onnx-*")))
    assert f"{folder.relative_to(bundle)}/test_data_set_0" in use
    assert (folder / "model.onnx").is_file() and (folder / "test_data_set_0/input_0.pb").is_file()


def test_wrong_answers_on_a_phone_are_the_verdict_of_the_page(tmp_path: Path) -> None:
    bundle = copied(tmp_path, "tiny", "mobile")
    imported(bundle, ["mobile"], files(tmp_path, RUNS, WRONG), "Pixel 8", save=True)
    page = text_of(html(Bundle.open(bundle)))
    assert page.startswith("tiny: INVALID") and "INVALID mobile, timed on Pixel 8: 1 of 3 data sets" in page
    imported(bundle, ["mobile"], files(tmp_path, RUNS, COMPARED), "Pixel 8", save=True)
    assert text_of(html(Bundle.open(bundle))).startswith("tiny: PASS")


def test_a_few_calls_are_shown(tmp_path: Path) -> None:
    (path,) = files(tmp_path, "tiny,0.001,1,1,0\n")
    words = ("--target", "mobile", "--import", path, "--as", "Pixel 8")
    shown = quick("profile", exported("tiny", "mobile"), *words, cwd=tmp_path)
    assert shown.code == 0 and "n too small" in shown.out


def test_what_would_measure_beside_it_is_refused(tmp_path: Path) -> None:
    (path,) = files(tmp_path, RUNS)
    bundle = exported("tiny", "mobile")
    assert "two things" in run("profile", bundle, "--import", path, "--layers").refused("bad-option")
    assert "needs a name" in run("profile", bundle, "--import", path, "--save").refused("bad-option")
    assert "two runs" in run("profile", bundle, "--sweep", "threads=1", "--layers").refused("bad-option")
    assert "nobody gave" in run("profile", bundle, "--as", "phone").refused("bad-option")
    assert "no record" in run("profile", bundle, "--target", "mobile", "--import", tmp_path).refused("missing-file")
