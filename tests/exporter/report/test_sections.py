"""What each section says of what was measured, and of what was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.host.preview import SCORE
from exporter.report import MOST_BYTES
from exporter.report.collect import collected
from exporter.report.examples import Example, Examples, Version, checked
from exporter.report.page import document
from exporter.report.reading import Fields
from exporter.report.sections import SECTIONS
from exporter.report.sections.environment import _moment
from exporter.report.sections.outputs import MEDIA_BYTES
from exporter.report.values import Page
from exporter.verdict import Verdict
from tests.exporter.report.bundles import Elements, export, hops, profile, published, subject, text_of, verification


def section(page: Page, name: str) -> str:
    """The text of one section."""
    (made,) = [made for each in SECTIONS if (made := each(page)) is not None and made.anchor == name]
    return text_of(made.body)


def page_of(folder: Path, facts: dict[str, Any] | None = None, **reports: Any) -> Page:
    """The values of a bundle with these facts of its hops, and these other reports."""
    return collected(published(folder / "b", {"verify": verification(hops(**(facts or {}))), **reports}))


def test_sections_come_in_this_order_and_each_says_what_is_missing(tmp_path: Path) -> None:
    page = collected(published(tmp_path / "b", {}))
    found = [made for each in SECTIONS if (made := each(page)) is not None]
    assert [made.anchor for made in found] == [
        "verdict", "hops", "errors", "spread", "drift", "outputs", "latency", "layers", "ran", "devices", "environment",
        "reproduce",
    ]  # fmt: skip
    for made in found:
        said = text_of(made.body)
        if made.anchor in ("hops", "errors", "spread", "drift", "outputs", "latency", "layers", "ran", "environment"):
            assert "Not measured." in said and "exporter " in said, made.anchor


def test_the_spread_of_errors_is_drawn_and_told(tmp_path: Path) -> None:
    counts = [0] * 8 + [10, 80, 10] + [0] * 17
    spread = {"y": {"first_power": -12, "step": 0.5, "exact": 900, "counts": counts}}
    page = page_of(tmp_path, {"histograms": spread})
    said = section(page, "spread")
    assert "1,000 elements, 900 of them exact; half of the others are off by less than 1e-7" in said
    assert "exact 900 90.0%" in said and "1e-8 to 3.16e-8 10 1.0%" in said
    charts = [a for a in Elements(document(page)).named("svg") if a.get("role") == "img"]
    assert len(charts) == 2, "one of the artifact, one of the graph"


def test_drift_is_drawn_step_by_step_beside_eagers(tmp_path: Path) -> None:
    drift = {"a sequence": {"output": "y", "error": [1e-7, 3e-7, 2e-7], "eager": [1e-7, 1e-7, 4e-7]}}
    page = page_of(tmp_path, {"drift": drift})
    assert "a sequence 3 1e-7 2e-7 2e-7 3e-7 4e-7" in section(page, "drift")
    curves = Elements(document(page)).named("polyline")
    assert [curve["class"] for curve in curves] == ["curve noise", "curve"] * 2
    assert all(len((curve["points"] or "").split()) == 3 for curve in curves)


def test_a_model_without_state_has_no_section_on_drift(tmp_path: Path) -> None:
    page = collected(published(tmp_path / "b", {}, state=(), stream=None))
    assert "drift" not in [made.anchor for each in SECTIONS if (made := each(page)) is not None]


def test_layers_are_ordered_by_time_and_the_rest_is_counted(tmp_path: Path) -> None:
    layers = [{"ms": float(i), "kind": "Conv", "precision": "fp32", "nodes": [f"n{i}"]} for i in range(1, 41)]
    page = page_of(tmp_path, profile=profile(subject("some", 1.0, layer_times=layers)))
    said = section(page, "layers")
    assert said.index("n40 Conv fp32 40.0 ms 4.9%") < said.index("n39 Conv") < said.index("n11 Conv")
    assert "n10 Conv" not in said and "10 more layers take 55.0 ms, 6.7%" in said and "Conv 100%" in said


def test_what_ran_is_shown_in_shares(tmp_path: Path) -> None:
    facts = {
        "work": {"fp32": 0.25, "bf16": 0.75},
        "bin": {"layers": {"fp32": 1, "bf16": 3}, "providers": {"CPU": 7, "Other": 1}},
        "kept": {"/conv": "it errs"}, "modules": {"/conv": "net.conv"},
    }  # fmt: skip
    said = section(page_of(tmp_path, facts), "ran")
    assert "some/fp32 multiplications bf16 75.0%, fp32 25.0%" in said
    assert "layers by precision bf16 75.0% (3), fp32 25.0% (1)" in said
    assert "nodes by provider CPU 87.5% (7), Other 12.5% (1)" in said and "/conv net.conv it errs" in said


def test_devices_stand_side_by_side_and_no_ratio_is_taken_across_them(tmp_path: Path) -> None:
    there = profile(subject("some", 7.0, stability="NOISY"), cpu="A Board")
    page = page_of(tmp_path, profile=profile(), there=there)
    said = section(page, "devices")
    assert "subject A Processor, 2 cores, Linux 6 A Board, 2 cores, Linux 6" in said
    assert "some STABLE 1.00 ms (980 – 1.02" in said.replace(" µs", "") and "NOISY 7.00 ms" in said
    assert "eager STABLE 4.00 ms" in said and "not timed" in said and "×" not in said


def test_the_commands_make_it_again(tmp_path: Path) -> None:
    said = section(collected(published(tmp_path / "b")), "reproduce")
    assert "exporter some tiny -o tiny.bundle --dim T=1:3:9:2 --set " in said
    assert "--set width=4" in said and "--set 'taps=[1, 2.5, null]'" in said and "--option workspace=1" in said
    assert "--precision int8" in said and "exporter profile tiny.bundle --layers --save" in said


def test_the_environment_says_what_is_not_told(tmp_path: Path) -> None:
    said = section(page_of(tmp_path, profile=profile()), "environment")
    assert (
        "made with torch 2.13.0" in said
        and "Not told: device, chip, system, governor" in said
        and "some/fp32 valid under version 1" in said
    )
    with_stages = section(collected(published(tmp_path / "c", {"export-some-fp32": export()})), "environment")
    assert "What export-some-fp32 took: 1 stage, 2 s" in with_stages and "trace 1.5 400 MB no" in with_stages


# ------------------------------------------------------------------------------------------------------- what it gives


def versions(**values: Any) -> tuple[Version, ...]:
    return tuple(Version(kind, "some/fp32" if kind == "artifact" else "", held) for kind, held in values.items())


def shown(page: Page, *examples: Example) -> Elements:
    """The section on outputs with these examples."""
    (made,) = [
        m for each in SECTIONS if (m := each(replace(page, examples=Examples(examples)))) and m.anchor == "outputs"
    ]
    return Elements(made.body)


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return page_of(tmp_path)


def test_recordings_have_a_picture_and_a_player_each(page: Page) -> None:
    audio = {"audio": np.arange(4000, dtype=np.int16), "sample_rate": np.array(16000)}
    quiet = audio | {"audio": audio["audio"] // 2}
    found = shown(page, Example("a", versions(given=audio, reference=quiet, artifact=quiet)))
    assert len(found.named("audio")) == len(found.named("img")) == 2
    assert all((a["src"] or "").startswith("data:audio/wav;base64,") and "controls" in a for a in found.named("audio"))
    assert all(image["alt"] for image in found.named("img"))
    assert "some/fp32: the same as reference, float64, to the last bit of what is shown" in found.text


def test_pictures_and_maps_are_shown_with_what_their_colours_mean(page: Page) -> None:
    picture = {"image": np.zeros((4, 6, 3), np.uint8)}
    first = {"disparity": np.array([[0.0, np.nan], [1.0, 2.0]], np.float32)}
    second = {"disparity": np.array([[0.0, 1.0], [1.0, 4.0]], np.float32)}
    found = shown(page, Example("a", versions(given=picture, reference=first, artifact=second)))
    assert [image["width"] for image in found.named("img")] == ["6", "2", "2"]
    assert found.text.count("(0 to 4 px)") == 2, "both on one scale"


def test_scores_are_scattered_against_the_truth_where_there_is_one(page: Page) -> None:
    examples = [
        Example(f"c{i}", versions(truth={SCORE: np.array([i])}, reference={SCORE: np.array([i / 2])},
                                  artifact={SCORE: np.array([i / 3])}))
        for i in range(5)
    ]  # fmt: skip
    found = shown(page, *examples)
    assert len(found.named("circle")) == 5 and "scores of 5 real inputs against the truth" in found.text
    assert "c3 3 1.5 1" in found.text


def test_a_bundle_whose_artifacts_answers_were_not_kept_says_how(page: Page) -> None:
    picture = {"image": np.zeros((4, 6, 3), np.uint8)}
    found = shown(page, Example("a", versions(given=picture, reference=picture)))
    assert "What artifacts give for these inputs was not kept. exporter verify tiny.bundle --save" in found.text


def test_a_page_stays_small_whatever_there_is_to_look_at(page: Page) -> None:
    loud = np.random.default_rng(0).integers(-30000, 30000, 64000).astype(np.int16)
    many = [
        Example(f"c{i}", versions(given={"audio": np.roll(loud, i), "sample_rate": np.array(16000)})) for i in range(40)
    ]
    whole = document(replace(page, examples=Examples(tuple(many))))
    assert len(whole) < MOST_BYTES and MEDIA_BYTES < MOST_BYTES
    assert "more examples would not fit into a page of 3 MB" in whole


def test_what_could_not_be_gathered_is_said_and_nothing_else_is_lost(page: Page) -> None:
    whole = text_of(document(replace(page, examples=Examples(problem="no memory <left>"))))
    assert "could not be made ready: no memory <left>" in whole and page.verdict is Verdict.SKIPPED


@pytest.mark.parametrize(
    "values",
    [
        {"image": np.zeros((4, 6, 3), np.float32)},
        {"image": np.zeros((4, 6, 2), np.uint8)},
        {"image": np.zeros((9000, 6, 3), np.uint8)},
        {"image": np.zeros((0, 6, 3), np.uint8)},
        {"audio": np.zeros(9, np.int16)},
        {"audio": np.zeros(9, np.int16), "sample_rate": np.array(0)},
        {"audio": np.zeros(9_000_000, np.int16), "sample_rate": np.array(16000)},
        {"score": np.zeros(3, np.int64)},
        {"disparity": np.zeros((2, 2, 2), np.float32)},
        {"other": np.zeros(3, np.float32)},
    ],
)
def test_what_a_bundle_holds_in_another_form_is_not_shown(values: dict[str, Any]) -> None:
    assert checked(values) == {}


def test_a_layer_is_held_against_what_the_machine_reaches(tmp_path: Path) -> None:
    layer = {"ms": 2.0, "kind": "Conv", "precision": "fp32", "nodes": ["n"], "gflops": 50.0, "gbs": 4.0,
             "of_limit": 0.5, "bound": "compute"}  # fmt: skip
    whole = {"gflops": 40.0, "gbs": 3.0, "of_limit": 0.4, "bound": "compute"}
    it = subject("some", 1.0, layer_times=[layer], roofline=whole, shares={"module": {"net/stem": 0.9}})
    value = profile(it) | {"peaks": {"gflops": {"fp32": 100.0, "int8": 300.0}, "gbs": 12.0}}
    text = section(page_of(tmp_path, profile=value), "layers")
    assert "50" in text and "50% compute" in text.replace("50.0%", "50%") and "net/stem" in text
    assert "100 GFLOP/s in fp32, 300 GFLOP/s in int8, 12 GB/s" in text and "bound by compute" in text
    (tmp_path / "other").mkdir()
    bare = page_of(tmp_path / "other", profile=profile(subject("some", 1.0, layer_times=[{"ms": 1.0}])))
    assert "GFLOP/s" not in section(bare, "layers"), "columns of nothing are left out"


def test_a_run_without_a_pause_is_drawn_and_told(tmp_path: Path) -> None:
    run = {
        "subject": "some", "verdict": "PASS", "windows": [[0.5, 1.0], [1.0, 1.5], [1.5, None], ["x", 2]],
        "moments": [[0.0, 2000, None], [1.0, 1500, None]], "ratio": 1.5, "interval": [1.4, 1.6], "conclusion": "slower",
        "slows_at_s": 0.5, "throttled_ms": 0.0, "no_energy": None,
        "energy": [{"source": "rapl <b>", "idle_watts": 3.0, "watts": 9.0, "joules": 0.01, "above_idle": None}],
    }  # fmt: skip
    text = section(page_of(tmp_path, profile=profile(subject("some", 1.0)) | {"sustained": [run]}), "sustained")
    assert "slows down after" in text and "1.5 (1.4 to 1.6)" in text and "rapl <b>" in text and "9 W" in text
    assert "MHz" in text and "degrees C" not in text, "what was never told is not drawn"
    (tmp_path / "other").mkdir()
    quiet = page_of(tmp_path / "other", profile=profile(subject("some", 1.0)))
    assert "sustained" not in [made.anchor for each in SECTIONS if (made := each(quiet)) is not None]


def test_points_of_a_sweep_are_listed(tmp_path: Path) -> None:
    points = [{"subject": "some batch=4", "per_second": 123.0}, {"subject": "some batch=8", "per_second": None}]
    value = profile(subject("some batch=4", 1.0)) | {"sweep": {"by": {"batch": [4, 8]}, "points": points}}
    assert "123" in section(page_of(tmp_path, profile=value), "latency")


def test_what_was_timed_on_a_device_is_not_told_of_this_machine(tmp_path: Path) -> None:
    there = profile(subject("some", 99.0), device={"label": "pi", "emulated": "a core by qemu"})
    page = page_of(tmp_path, **{"profile-a-pi": there, "profile": profile(subject("some", 1.0))})
    shown = section(page, "verdict")
    assert "99.0 ms" not in shown and "1.00 ms" in shown
    assert "pi (emulated)" in section(page, "latency")


def test_what_held_a_device_down_is_told_in_words() -> None:
    moment = Fields({"throttled": {"firmware now": "under-voltage + throttled", "core events since boot": 7, "x": []}})
    assert _moment(moment) == ("throttling firmware now under-voltage + throttled, core events since boot 7")
