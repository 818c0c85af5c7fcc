"""An export that is killed half-way: the next one goes on from the last stage that was done."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli_fakes.tool import alive, assert_whole, descendants, ended, run, spawn, until

STAGES = ("trace", "reference", "simplify", "verify traced", "verify simplified")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str | None]:
    """A user whose cache is empty."""
    return {"XDG_CACHE_HOME": str(tmp_path / "cache"), "EXPORTER_CACHE_MB": None}


def began(process: subprocess.Popen[str], stage: str) -> None:
    """Reads what an export says until a stage begins."""
    assert process.stderr is not None
    while not process.stderr.readline().startswith(f"{stage} ..."):
        assert process.poll() is None


def killed(process: subprocess.Popen[str]) -> None:
    """``kill -9``, and the children are gone with it."""
    family = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    assert ended(process, 20).code == -signal.SIGKILL
    until(lambda: not any(map(alive, family)), 10)


def stages(bundle: Path, env: dict[str, str | None], target: str = "fake-good") -> dict[str, Any]:
    """Whether each stage of an export was reused."""
    found = run(target, "tiny", "--no-profile", "-o", bundle, "--json", env=env)
    assert found.code == 0, found
    assert_whole(bundle)
    return {stage["stage"]: stage["cached"] for stage in found.json["stages"]}


@pytest.mark.parametrize(
    ("at", "done"),
    [("simplify", 2), pytest.param("verify traced", 3, marks=pytest.mark.slow), ("compile", 5)],
)
def test_killed_when_a_stage_began_the_ones_before_it_are_taken(
    at: str, done: int, tmp_path: Path, env: dict[str, str | None]
) -> None:
    bundle = tmp_path / "tiny.bundle"
    process = spawn("fake-good", "tiny", "--no-profile", "-o", bundle, env=env)
    began(process, at)
    killed(process)
    assert not (bundle / "manifest.json").exists()
    found = stages(bundle, env)
    assert [found[stage] for stage in STAGES] == [index < done for index in range(len(STAGES))]


@pytest.mark.slow
def test_killed_while_one_of_two_stages_is_done(tmp_path: Path, env: dict[str, str | None]) -> None:
    """``trace`` and ``reference`` run at the same time: each is kept as soon as it is done."""
    bundle, kept = tmp_path / "tiny.bundle", tmp_path / "cache" / "exporter" / "stages"
    process = spawn("fake-good", "tiny", "--no-profile", "-o", bundle, env=env)
    until(lambda: any(not path.name.startswith(".") for path in kept.glob("*")) or process.poll() is not None)
    killed(process)
    found = stages(bundle, env)
    assert found["trace"] or found["reference"]


def test_killed_in_a_compile_another_bundle_takes_the_graph(tmp_path: Path, env: dict[str, str | None]) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    process = spawn(
        "fake-hang", "tiny", "--no-profile", "-o", tmp_path / "one.bundle", env={**env, "FAKES_NOTES": str(notes)}
    )
    until(lambda: (notes / "hanging").exists() and (notes / "helper").read_text())
    os.kill(process.pid, signal.SIGKILL)
    ended(process, 20)
    os.kill(int((notes / "helper").read_text()), signal.SIGKILL)  # the kernel tells children, not their children
    found = stages(tmp_path / "two.bundle", env)
    assert all(found[stage] for stage in STAGES) and not found["compile"]


def test_interrupted_it_goes_on_too(tmp_path: Path, env: dict[str, str | None]) -> None:
    bundle = tmp_path / "tiny.bundle"
    process = spawn("fake-good", "tiny", "--no-profile", "-o", bundle, env=env)
    began(process, "verify traced")
    os.kill(process.pid, signal.SIGINT)
    assert ended(process, 20).code == 130 and not bundle.exists()
    found = stages(bundle, env)
    assert [found[stage] for stage in STAGES[:3]] == [True] * 3


def test_two_exports_of_one_model_at_once(tmp_path: Path, env: dict[str, str | None]) -> None:
    """Both make everything, or one takes what the other was faster with; both are whole, and nothing half written."""
    both = [spawn("fake-good", "tiny", "--no-profile", "-o", tmp_path / f"{n}.bundle", env=env) for n in range(2)]
    assert [ended(process).code for process in both] == [0, 0]
    graphs = [sorted(path.name for path in (tmp_path / f"{n}.bundle" / "graphs").iterdir()) for n in range(2)]
    assert graphs[0] == graphs[1]
    kept = tmp_path / "cache" / "exporter" / "stages"
    assert len(list(kept.iterdir())) == 5 and not [path for path in kept.iterdir() if path.name.startswith(".")]
    found = stages(tmp_path / "third.bundle", env)
    assert all(found[stage] for stage in STAGES)


def test_a_stage_that_failed_is_not_kept(tmp_path: Path, env: dict[str, str | None]) -> None:
    """Out of time in the first try; the second has time."""
    bundle = tmp_path / "tiny.bundle"
    started = time.monotonic()
    found = run("fake-good", "tiny", "--no-profile", "-o", bundle, "--timeout", "0.3", env=env)
    found.failed("stage-timed-out", 4)
    assert time.monotonic() - started < 60 and not bundle.exists()
    assert not any(stages(bundle, env).values())
