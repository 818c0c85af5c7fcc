"""What ``exporter diagnose`` prints and how it ends, with the fakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.cli.render_diagnosis import COLUMNS, plot
from tests.cli_fakes.tool import copied, exported, quick, run

KEYS = {"schema", "model", "bundle", "weights", "verdict", "outcome", "hop", "target", "precision", "pass", "births",
        "reproduction", "notes", "seconds", "runs"}  # fmt: skip


def test_nothing_to_diagnose_is_0(tmp_path: Path) -> None:
    ended = quick("diagnose", exported(), "--json", cwd=tmp_path)
    assert ended.code == 0 and ended.err == "" and set(ended.json) == KEYS
    assert ended.json["schema"] == "exporter.diagnose/1" and ended.json["outcome"] == "nothing to diagnose"
    said = quick("diagnose", exported(), cwd=tmp_path)
    assert said.out.startswith("PASS  tiny  seeded weights") and "nothing to diagnose" in said.out
    assert not list(tmp_path.glob("*.bundle"))


@pytest.mark.parametrize(("target", "outcome"), [("fake-wrong", "located"), ("fake-liar", "not located")])
def test_a_hop_that_fails_is_1(tmp_path: Path, target: str, outcome: str) -> None:
    """One computes something else; the other computes right, in a type that was not asked for."""
    bundle = copied(tmp_path)
    assert run(target, "tiny", "-o", bundle, "--no-profile", cwd=tmp_path).code == 1
    ended = quick("diagnose", bundle, "--target", target, "--json", "-o", tmp_path / "part.bundle", cwd=tmp_path)
    assert ended.code == 1, ended
    assert (ended.json["hop"], ended.json["target"], ended.json["outcome"]) == ("compiled", target, outcome)
    if outcome == "located":
        assert ended.json["births"][0]["node"] and ended.json["births"][0]["growth"]
        assert quick("verify", ended.json["reproduction"], cwd=tmp_path).code == 1
    else:
        assert "bf16 ran" in " ".join(ended.json["notes"])


def test_an_artifact_that_crashes_is_4(tmp_path: Path) -> None:
    bundle, crash = copied(tmp_path), {"FAKES_CRASH": "1"}
    run("fake-crashes-later", "tiny", "-o", bundle, "--no-profile", cwd=tmp_path)
    ended = run("diagnose", bundle, "--target", "fake-crashes-later", "--json", cwd=tmp_path, env=crash)
    assert ended.code == 4 and ended.json["outcome"] == "no answer" and ended.json["notes"]


def test_a_case_that_is_not_there_is_refused(tmp_path: Path) -> None:
    quick("diagnose", exported(), "--case", "norml", cwd=tmp_path).refused("unknown-case")


def test_the_plot_shows_where_the_error_is_born() -> None:
    growth = [{"place": place, "node": str(place), "off": 1.0 if place < 51 else 1e6} for place in range(1, 101)]
    lines = list(plot(growth, 51, 100))
    (born,) = [line.index("^") for line in lines if "^" in line]
    top, bottom = lines[0], lines[-2]
    assert top.index("*") == born and bottom.rindex("*") < born
    assert all(len(line.partition("|")[2]) <= COLUMNS for line in lines[:-1])


def test_a_plot_of_one_point_and_of_none() -> None:
    assert list(plot([], 1, 1)) == []
    assert any("*" in line for line in plot([{"place": 1, "node": "it", "off": float("inf")}], 1, 1))
