"""The whole target on the double: prepared here, built, inspected, run, timed; and everything that can go wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.bundle import Bundle, editing
from tests.cli_fakes.tool import SITE, Ended, run
from tests.targets.tensorrt import bindings
from tests.targets.tensorrt.bindings import NEWEST, VERSIONS

Env = dict[str, str]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two precisions, made where there is no TensorRT."""
    bundle = tmp_path_factory.mktemp("prepared") / "tiny.bundle"
    for precision in ("fp32", "fp16"):
        made = run("tensorrt", "tiny", "--precision", precision, "-o", bundle, cached=True)
        assert made.code == 3, made
    return bundle


@pytest.fixture(scope="module")
def environment_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Env]:
    if reason := bindings.absent():
        pytest.skip(reason)
    made: dict[str, Env] = {}

    def of(version: str) -> Env:
        if version not in made:
            made[version] = bindings.doubled(version, tmp_path_factory.mktemp("double"))
            made[version]["PYTHONPATH"] += os.pathsep + str(SITE)
        return made[version]

    return of


@pytest.fixture
def there(environment_of: Callable[[str], Env], tmp_path: Path) -> Env:
    """A GPU machine of a user who has built nothing yet."""
    own = {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    return environment_of(NEWEST) | own | {"DOUBLE_LOG": str(tmp_path / "calls.jsonl")}


def calls(env: Env) -> list[dict[str, Any]]:
    path = Path(env["DOUBLE_LOG"])
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def named(env: Env, call: str) -> list[dict[str, Any]]:
    return [entry["arguments"] for entry in calls(env) if entry["call"] == call]


def compile_(bundle: Path, env: Env, *more: object, precision: str = "fp32") -> Ended:
    return run("compile", bundle, "--target", "tensorrt", "--precision", precision, "--json", *more, env=env)


@pytest.fixture
def bundle(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path / "tiny.bundle")


@pytest.fixture(scope="module")
def built_once(prepared: Path, environment_of: Callable[[str], Env], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle that was built, what its user's machine keeps of that, and the calls that it took."""
    place = tmp_path_factory.mktemp("built")
    shutil.copytree(prepared, place / "tiny.bundle")
    own = {"XDG_STATE_HOME": str(place / "state"), "XDG_CACHE_HOME": str(place / "cache")}
    made = compile_(place / "tiny.bundle", environment_of(NEWEST) | own | {"DOUBLE_LOG": str(place / "calls.jsonl")})
    assert made.code == 0, made
    return place


@pytest.fixture
def built(built_once: Path, there: Env, tmp_path: Path) -> Path:
    """A copy of it, in the place of ``there``."""
    shutil.copytree(built_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "tiny.bundle"


# ------------------------------------------------------------------------------------------------------ prepared


def test_a_machine_without_it_prepares_all_but_the_engine(prepared: Path) -> None:
    manifest = Bundle.open(prepared).manifest
    info = manifest.targets["tensorrt/fp16"]
    assert info.status == "incomplete" and set(info.files) == {"recipe"} and info.forms == ()
    recipe = json.loads((prepared / info.files["recipe"]).read_text())
    assert recipe["profiles"] == {"x": {"min": [2, 4], "opt": [5, 4], "max": [9, 4]}}
    assert set(recipe["types"].values()) <= {"fp16", "fp32"} and "fp16" in recipe["types"].values()
    assert recipe["strongly_typed"] is True and {"10.3", "10.16", "11.4"} <= set(recipe["problems"])
    assert not any(recipe["problems"].values())
    assert info.next.endswith("exporter compile BUNDLE --target tensorrt --precision fp16"), "wherever it lies by then"
    (line,) = info.advice
    assert line.startswith(f"by hand: trtexec --onnx={info.graphs['model']} ") and "--minShapes=x:2x4" in line


def test_a_bundle_that_was_moved_says_how_to_finish_it_where_it_is(prepared: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(prepared, tmp_path / "moved it.bundle")
    found = run("verify", moved, "--target", "tensorrt/fp16")
    assert f"exporter compile '{moved}' --target tensorrt --precision fp16" in " ".join(found.out.split())
    assert "exporter compile BUNDLE --target tensorrt" in (moved / "USE.md").read_text()


def test_it_says_how_to_finish_and_how_by_hand(prepared: Path) -> None:
    found = run("verify", prepared)
    assert found.code == 3 and "SKIPPED" in found.out and "tensorrt is not installed" in found.out
    assert f"exporter compile {prepared} --target tensorrt" in found.out and "by hand: trtexec" in found.out
    page = (prepared / "USE.md").read_text()
    assert "Not compiled yet" in page and "trtexec" in page


@pytest.mark.slow
def test_a_graph_that_the_parser_refuses_is_refused_where_it_is_prepared(tmp_path: Path) -> None:
    found = run("tensorrt", "tiny-sampler", "-o", tmp_path / "it.bundle", "--no-profile")
    said = found.failed("unsupported", 1)
    assert (
        "GridSample takes a 4-D input alone" in said
        and "operators.md" in said
        and not (tmp_path / "it.bundle").exists()
    )


# --------------------------------------------------------------------------------------------------------- built


@pytest.mark.parametrize("version", [*(pytest.param(v, marks=pytest.mark.slow) for v in VERSIONS[:2]), NEWEST])
def test_both_precisions_are_built_inspected_and_right(
    version: str, bundle: Path, environment_of: Callable[[str], Env], tmp_path: Path
) -> None:
    """On every version, with every call checked against the real signatures."""
    env = environment_of(version) | {
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for precision in ("fp32", "fp16"):
        made = compile_(bundle, env, precision=precision)
        assert made.code == 0, made
        (hop,) = made.json["verify"]["hops"]
        assert hop["verdict"] == "PASS" and hop["precision"]["ran"] == precision, hop
        assert hop["facts"]["engine"]["differing"] == {}
        assert hop["facts"]["fingerprint"]["tensorrt"] == version
    checked = run("verify", bundle, "--json", env=env)
    assert checked.code == 0 and len(checked.json["hops"]) == 2, checked


@pytest.mark.slow
def test_it_is_one_step_where_the_gpu_is(there: Env, tmp_path: Path) -> None:
    words = ("tensorrt", "tiny", "-o", tmp_path / "it.bundle", "--precision", "fp16", "--no-profile", "--json")
    made = run(*words, env=there)
    assert made.code == 0, made
    hops = [(hop["hop"], hop["verdict"]) for hop in made.json["verify"]["hops"]]
    assert hops == [(name, "PASS") for name in ("traced", "simplified", "lowered", "compiled")]


def test_the_network_is_strongly_typed_tf32_off_and_the_profile_is_the_dims(built: Path, there: Env) -> None:
    (network,) = named(there, "Builder.create_network")
    flags = json.loads(Path(there["TENSORRT_SURFACE"]).read_text())["enums"]["NetworkDefinitionCreationFlag"]
    assert network["flags"] == 1 << flags["STRONGLY_TYPED"]
    assert {"flag": "TF32"} in named(there, "IBuilderConfig.clear_flag")
    assert {"flag": "TF32"} not in named(there, "IBuilderConfig.set_flag")
    recipe = json.loads((built / Bundle.open(built).manifest.targets["tensorrt/fp32"].files["recipe"]).read_text())
    assert recipe["profiles"]["x"]["max"] == [9, 4]


def test_options_reach_the_builder(bundle: Path, there: Env) -> None:
    options = ("version-compatible=on", "workspace=1G", "optimisation_level=5", "hardware-compatible=ampere-plus",
               "refit=true", "weight-streaming=true")  # fmt: skip
    made = compile_(bundle, there, *(word for option in options for word in ("--option", option)))
    assert made.code == 0, made
    flags = {entry["flag"] for entry in named(there, "IBuilderConfig.set_flag")}
    assert flags == {"VERSION_COMPATIBLE", "REFIT", "WEIGHT_STREAMING"}
    assert named(there, "IBuilderConfig.set_memory_pool_limit") == [{"pool": "WORKSPACE", "pool_size": 2**30}]
    assert named(there, "IBuilderConfig.builder_optimization_level =") == [{"value": 5}]
    info = Bundle.open(bundle).manifest.targets["tensorrt/fp32"]
    assert info.fingerprint["compatible"] == "version+ampere-plus"
    assert info.options["workspace"] == 2**30, "compiling again elsewhere does the same"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("workspac=1", "nearest: workspace"), ("workspace=much", "whole number"), ("refit=maybe", "true or yes"),
        ("optimisation-level=9", "0..5"), ("hardware-compatible=all", "one of none"), ("refit", "NAME=VALUE"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(option: str, said: str, bundle: Path) -> None:
    found = run("compile", bundle, "--target", "tensorrt", "--option", option)
    assert said in found.refused("bad-option")


@pytest.mark.slow
def test_a_stripped_engine_takes_its_weights_from_the_graph(bundle: Path, there: Env) -> None:
    made = compile_(bundle, there, "--option", "strip-plan=true")
    assert made.code == 0 and "graph" in Bundle.open(bundle).manifest.targets["tensorrt/fp32"].files, made
    assert named(there, "OnnxParserRefitter.refit_from_file")


def test_the_builder_says_how_far_it_is_and_its_log_is_kept(built: Path, there: Env) -> None:
    assert named(there, "IBuilderConfig.progress_monitor =")
    log = built / Bundle.open(built).manifest.targets["tensorrt/fp32"].files["log"]
    assert "Engine generation completed" in log.read_text() and "strongly" in log.read_text().lower()


# ------------------------------------------------------------------------------------------------- what was wrong


def test_an_engine_that_computes_in_another_type_is_a_fail(bundle: Path, there: Env) -> None:
    """It builds without a word, and its values are within the bounds: the inspector tells."""
    made = compile_(bundle, there | {"DOUBLE_FAULT": "untyped"}, precision="fp16")
    assert made.code == 1, made
    (hop,) = made.json["verify"]["hops"]
    assert hop["verdict"] == "FAIL" and hop["precision"]["ran"] == "fp32"
    assert "ran otherwise than the graph declares" in hop["reason"] and "in fp32" in hop["reason"]


def test_tf32_is_off_unless_it_is_asked_for(bundle: Path, there: Env) -> None:
    made = compile_(bundle, there | {"DOUBLE_FAULT": "tf32"})
    (hop,) = made.json["verify"]["hops"]
    assert made.code == 1 and hop["reason"] == "asked for fp32, tf32 ran"


@pytest.mark.slow
def test_tf32_is_a_precision_with_a_yardstick_of_its_own(there: Env, tmp_path: Path) -> None:
    words = ("tensorrt", "tiny", "--precision", "tf32", "-o", tmp_path / "it.bundle", "--no-profile", "--json")
    made = run(*words, env=there)
    assert made.code == 0, made
    hop = made.json["verify"]["hops"][-1]
    assert hop["precision"] == {"asked": "tf32", "stored": "fp32", "ran": "tf32"} and hop["worst"]["noise"] > 1e-5
    assert {"flag": "TF32"} in named(there, "IBuilderConfig.set_flag")
    assert Bundle.open(tmp_path / "it.bundle").manifest.targets["tensorrt/tf32"].graphs == {}, "the graph is the same"


def test_a_builder_that_crashes_is_said_and_leaves_the_bundle(bundle: Path, there: Env) -> None:
    before = (bundle / "manifest.json").read_bytes()
    found = run("compile", bundle, "--target", "tensorrt", env=there | {"DOUBLE_FAULT": "abort"})
    assert "SIGABRT" in found.failed("stage-crashed", 4)
    assert (bundle / "manifest.json").read_bytes() == before


def test_a_builder_that_finds_nothing_says_what_it_said(bundle: Path, there: Env) -> None:
    found = run("compile", bundle, "--target", "tensorrt", env=there | {"DOUBLE_FAULT": "no-engine"})
    said = found.failed("stage-failed", 4)
    assert "Could not find any implementation" in said and "--option workspace" in said


@pytest.mark.slow
def test_a_parser_that_refuses_is_quoted(bundle: Path, there: Env) -> None:
    found = run("compile", bundle, "--target", "tensorrt", env=there | {"DOUBLE_FAULT": "refuse"})
    assert "No importer registered" in found.failed("unsupported", 1)


@pytest.mark.slow
def test_an_engine_that_returns_its_last_answer_is_caught_while_it_is_timed(built: Path, there: Env) -> None:
    found = run(
        "profile", built, "--target", "tensorrt", "--seconds", "1", "--json", env=there | {"DOUBLE_FAULT": "stale"}
    )
    subject = {s["name"]: s for s in found.json["subjects"]}["tensorrt"]
    assert subject["verdict"] != "PASS" and subject["median_ms"] is None


# ---------------------------------------------------------------------------------------------------- timing cache


def timings(env: Env) -> list[Path]:
    return sorted((Path(env["XDG_CACHE_HOME"]) / "exporter" / "tensorrt").glob("*.timings"))


def test_timings_are_kept_per_device_and_version_and_used_again(built: Path, there: Env) -> None:
    (cache,) = timings(there)
    assert cache.name == f"Double-9000-8.9-{NEWEST}.timings"
    assert compile_(built, there).code == 0
    given = [entry["serialized_timing_cache"] for entry in named(there, "IBuilderConfig.create_timing_cache")]
    assert any(size != "0 bytes" for size in given)


@pytest.mark.parametrize("how", ["cut", "foreign"])
def test_timings_that_do_not_fit_are_discarded_aloud(how: str, built: Path, there: Env) -> None:
    (cache,) = timings(there)
    content = cache.read_bytes()
    if how == "cut":
        cache.write_bytes(content[:-3])
    else:  # of another GPU, under the name of this one
        import hashlib

        data = content[32:].replace(b"Double 9000", b"Double 7000")
        cache.write_bytes(hashlib.sha256(data).digest() + data)
    made = compile_(built, there)
    assert made.code == 0, made
    advice = made.json["verify"]["hops"][0]["facts"]["advice"]
    (said,) = [line for line in advice if "timing cache" in line]
    assert ("damaged" if how == "cut" else "another device") in said and cache.name in said
    assert timings(there) == [cache] and cache.read_bytes() == content, "made anew"


# ---------------------------------------------------------------------------------------------------- preflight


def ran_on(bundle: Path, env: Env, *more: object) -> tuple[int, str]:
    found = run("verify", bundle, "--target", "tensorrt/fp32", "--json", *more, env=env)
    assert found.code in (0, 1), found
    return found.code, " ".join(found.json["hops"][0]["facts"]["advice"])


def test_what_this_machine_built_is_loaded(built: Path, there: Env) -> None:
    before = len(named(there, "Builder.build_serialized_network"))
    assert ran_on(built, there) == (0, "")
    assert len(named(there, "Builder.build_serialized_network")) == before
    assert {"value": True} in named(there, "Runtime.engine_host_code_allowed =")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"DOUBLE_GPU_NAME": "Double 7000"}, "built for Double 9000 (8.9), here is Double 7000 (8.9)"),
        pytest.param({"DOUBLE_CAPABILITY": "80"}, "here is Double 9000 (8.0)", marks=pytest.mark.slow),
        pytest.param({"DOUBLE_VERSION": "11.9.0"}, f"TensorRT {NEWEST}, here is 11.9.0", marks=pytest.mark.slow),
    ],
)
def test_what_fits_no_longer_is_built_again_for_the_run(change: Env, said: str, built: Path, there: Env) -> None:
    before = (built / "manifest.json").read_bytes()
    code, advice = ran_on(built, there | change)
    assert code == 0 and "compiled again from its graph for this run" in advice and said in advice
    assert (built / "manifest.json").read_bytes() == before, "verify writes nothing"


def test_an_engine_of_a_stranger_is_built_again_or_trusted_in_so_many_words(
    built: Path, there: Env, tmp_path: Path
) -> None:
    stranger = there | {"XDG_STATE_HOME": str(tmp_path / "elsewhere")}
    code, advice = ran_on(built, stranger, "--trust-engine")
    assert code == 0 and "--trust-engine: this user's machine did not build it" in advice
    allowed = len(named(there, "Runtime.engine_host_code_allowed ="))
    ran_on(built, stranger, "--trust-engine")
    assert len(named(there, "Runtime.engine_host_code_allowed =")) == allowed, "its host code may not run"
    code, advice = ran_on(built, stranger)
    assert code == 0 and "did not build it" in advice and "compiled again" in advice


def test_a_bundle_does_not_choose_which_of_its_files_are_looked_at(built: Path, there: Env) -> None:
    """A manifest that calls a file that everybody has the one to open, with an engine of a stranger beside it."""
    with editing(built, "a stranger") as draft:
        assert draft.old is not None
        info = draft.old.manifest.targets["tensorrt/fp32"]
        foreign = draft.work / "model.engine"
        foreign.write_bytes(draft.old.file(info.files["engine"]).read_bytes() + b" ")
        files = info.files | {"engine": draft.add(foreign, "targets/tensorrt/fp32/model.engine")}
        changed = dataclasses.replace(info, files=files, forms=("recipe",))
        targets = draft.old.manifest.targets | {"tensorrt/fp32": changed}
        draft.commit(dataclasses.replace(draft.old.manifest, targets=targets))
    before = len(named(there, "Builder.build_serialized_network"))
    _, advice = ran_on(built, there)
    assert "did not build it" in advice and "compiled again" in advice
    assert len(named(there, "Builder.build_serialized_network")) == before + 1


def test_a_level_that_a_version_does_not_have_is_refused(
    bundle: Path, environment_of: Callable[[str], Env], tmp_path: Path
) -> None:
    own = {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    old = environment_of(VERSIONS[0]) | own | {"DOUBLE_LOG": str(tmp_path / "calls.jsonl")}
    made = compile_(bundle, old, "--option", "hardware-compatible=same-compute-capability")
    assert made.code == 1 and made.json["code"] == "unsupported" and "same-compute-capability" in made.json["what"]


@pytest.mark.slow
@pytest.mark.parametrize("which", ["XDG_CACHE_HOME", "XDG_STATE_HOME"])
def test_a_folder_that_cannot_be_written_costs_a_note_and_no_engine(
    which: str, bundle: Path, there: Env, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    made = compile_(bundle, there | {which: str(tmp_path / "file")})
    assert made.code == 0 and made.json["verdict"] == "PASS", made
    said = " ".join(made.json["verify"]["hops"][-1]["facts"]["advice"])
    assert ("could not be kept" if which == "XDG_CACHE_HOME" else "could not be noted") in said


@pytest.mark.slow
def test_a_version_too_old_prepares_as_if_there_were_none(there: Env, tmp_path: Path) -> None:
    made = run("tensorrt", "tiny", "-o", tmp_path / "old.bundle", env=there | {"DOUBLE_VERSION": "10.0.1"})
    assert made.code == 3 and "older than 10.3" in made.out, made


@pytest.mark.slow
def test_a_recipe_that_cannot_be_read_is_refused(built: Path, there: Env) -> None:
    with editing(built, "an accident") as draft:
        assert draft.old is not None
        info = draft.old.manifest.targets["tensorrt/fp32"]
        broken = draft.work / "recipe.json"
        broken.write_text('{"schema": "exporter.tensorrt-recipe/1"}')
        files = info.files | {"recipe": draft.add(broken, "targets/tensorrt/fp32/recipe.json")}
        targets = draft.old.manifest.targets | {"tensorrt/fp32": dataclasses.replace(info, files=files)}
        draft.commit(dataclasses.replace(draft.old.manifest, targets=targets))
    found = compile_(built, there)
    assert found.code == 2 and "is no build recipe" in found.json["what"], found


def test_a_stranger_s_engine_for_another_machine_is_refused(built: Path, there: Env, tmp_path: Path) -> None:
    stranger = there | {"XDG_STATE_HOME": str(tmp_path / "elsewhere"), "DOUBLE_CAPABILITY": "80"}
    found = run("verify", built, "--target", "tensorrt/fp32", "--trust-engine", env=stranger)
    said = found.refused("foreign-artifact")
    assert "here is Double 9000 (8.0)" in said and "exporter compile" in said


@pytest.mark.slow
def test_a_version_compatible_engine_is_loaded_by_a_newer_one(bundle: Path, there: Env) -> None:
    assert compile_(bundle, there, "--option", "version-compatible=on").code == 0
    code, advice = ran_on(bundle, there | {"DOUBLE_VERSION": "11.9.0"})
    assert code == 0 and "compiled again" not in advice and f"tensorrt {NEWEST}, opened with 11.9.0" in advice


def test_an_engine_exchanged_behind_the_manifest_is_refused(built: Path, there: Env) -> None:
    engine = built / Bundle.open(built).manifest.targets["tensorrt/fp32"].files["engine"]
    engine.write_bytes(engine.read_bytes() + b"x")
    assert run("verify", built, "--target", "tensorrt/fp32", env=there).code == 2


@pytest.mark.slow
def test_another_gpu_of_the_machine_is_used_where_it_is_asked_for(built: Path, there: Env, tmp_path: Path) -> None:
    told = tmp_path / "cuda.txt"
    two = there | {"DOUBLE_GPUS": "2", "DOUBLE_CALLS": str(told)}
    code, advice = ran_on(built, two, "--device", "1")
    assert code == 0 and advice == "", "one of the same kind"
    assert set(told.read_text().splitlines()) == {"cudaSetDevice 1"}
    told.unlink()
    ran_on(built, two, "--device", "0")
    assert set(told.read_text().splitlines()) == {"cudaSetDevice 0"}
    refused = run("tensorrt", "tiny", "-o", tmp_path / "new.bundle", "--device", "9", env=two)
    assert "this machine has 2" in refused.refused("bad-option") and "trace" not in refused.err


# ------------------------------------------------------------------------------------------------------- profiled


def test_it_is_timed_by_the_gpu_s_clock_copies_apart(built: Path, there: Env, tmp_path: Path) -> None:
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho '1200, 2520, 9501, 81, 300.1, 450.0, P0, Disabled, 0x0000000000000020'\n")
    smi.chmod(0o755)
    env = there | {"PATH": f"{smi.parent}{os.pathsep}{os.environ['PATH']}"}
    found = run("profile", built, "--target", "tensorrt/fp32", "--seconds", "1", "--layers", "--json", env=env)
    assert found.code == 0, found
    subjects = {s["name"]: s for s in found.json["subjects"]}
    timed = subjects["tensorrt"]
    assert timed["clock"] == "device" and timed["median_ms"] > 0
    assert set(timed["copies_ms"]) == {"in", "out"} and min(timed["copies_ms"].values()) > 0 and timed["host_ms"] > 0
    assert timed["layer_times"] and all(layer["nodes"] for layer in timed["layer_times"])
    assert subjects["eager on cuda"]["verdict"] == "SKIPPED" and found.json["ratios"] == []
    devices = found.json["environment"]["devices"]
    assert devices["before"]["tensorrt"]["held_down_by"] == ["software for heat"] and "after" in devices
    assert any("held down by software for heat" in w["what"] for w in found.json["warnings"])


@pytest.mark.slow
def test_a_cuda_graph_is_an_option_with_a_name(built: Path, there: Env, tmp_path: Path) -> None:
    words = ("profile", built, "--target", "tensorrt/fp32", "--seconds", "1", "--option", "cuda-graph=true", "--json")
    told = tmp_path / "cuda.txt"
    found = run(*words, env=there | {"DOUBLE_CALLS": str(told)})
    assert found.code == 0, found
    launched = [line for line in told.read_text().splitlines() if line == "cudaGraphLaunch 1"]
    assert len(launched) >= 10, "every timed call replays the graph, which holds the engine"
    told.unlink()
    run(*words[:-3], "--json", env=there | {"DOUBLE_CALLS": str(told)})
    assert "cudaGraphLaunch" not in told.read_text()
    (timed,) = [s for s in found.json["subjects"] if s["device"] == "cuda" and s["verdict"] == "PASS"]
    assert timed["options"] == {"cuda-graph": True} and timed["median_ms"] > 0
    refused = run("profile", built, "--target", "tensorrt", "--option", "refit=true", env=there)
    assert "compiling reads it" in refused.refused("bad-option")


def test_one_real_input_runs_through_it(built: Path, there: Env, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.ones((5, 4), np.float32))
    found = run("run", built, tmp_path / "in.npz", "--target", "tensorrt/fp32", "-o", tmp_path / "out.npz", env=there)
    assert found.code == 0, found
    with np.load(tmp_path / "out.npz") as out:
        assert out["y"].shape == (5, 3)


@pytest.mark.slow
def test_a_program_of_several_graphs_is_several_engines(there: Env, tmp_path: Path) -> None:
    made = run("tensorrt", "tiny-loop", "-o", tmp_path / "loop.bundle", "--no-profile", "--json", env=there)
    assert made.code == 0, made
    files = Bundle.open(tmp_path / "loop.bundle").manifest.targets["tensorrt/fp32"].files
    assert {"begin.engine", "again.engine", "begin.recipe", "again.recipe"} <= set(files)
