"""The record of what this user's machine built, and what is decided before an artifact is opened."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import pytest

from exporter import preflight, registry, trust
from exporter.errors import Refused
from exporter.preflight import Opening
from exporter.target import LOAD, REBUILD, REFUSE, Artifact, Options, Preflight


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "model.engine"
    path.write_bytes(b"machine code")
    return path


def test_what_was_remembered_is_known_by_its_bytes(engine: Path) -> None:
    assert trust.strangers({"engine": engine}) == ["engine"]
    trust.remember({"engine": engine}, target="t")
    assert trust.strangers({"engine": engine}) == []
    engine.write_bytes(b"other code")
    assert trust.strangers({"engine": engine}) == ["engine"]


def test_a_file_is_known_in_the_role_that_it_was_built_in(engine: Path) -> None:
    """What is written the same on every machine must not vouch for what is opened."""
    trust.remember({"engine": engine})
    assert trust.strangers({"recipe": engine}) == ["recipe"]


def test_containers_of_one_image_are_told_apart_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    here = trust.machine()
    monkeypatch.setattr(trust.platform, "node", lambda: "another")
    assert trust.machine() != here


def test_a_record_that_cannot_be_written_is_said(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert "built again" in " ".join(trust.remember({"engine": engine}))


def test_a_record_of_another_machine_is_none(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust.remember({"engine": engine})
    monkeypatch.setattr(trust, "machine", lambda: "another")
    assert trust.strangers({"engine": engine}) == ["engine"]


@pytest.mark.parametrize("content", ["", "no json", "[]", '"text"', "{}", '{"machine": null}'])
def test_a_record_that_cannot_be_read_knows_nothing(content: str, engine: Path) -> None:
    trust.remember({"engine": engine})
    (note,) = trust.folder().iterdir()
    note.write_text(content)
    assert trust.strangers({"engine": engine}) == ["engine"]


def test_the_record_is_its_user_s_alone(engine: Path) -> None:
    trust.remember({"engine": engine}, target="t", fingerprint={"gpu": "x"})
    assert trust.folder().stat().st_mode & 0o077 == 0
    (note,) = trust.folder().iterdir()
    assert json.loads(note.read_text())["fingerprint"] == {"gpu": "x"}


# ------------------------------------------------------------------------------------------------------ decisions


class Guarded:
    """A target whose artifacts bring code."""

    name, guarded = "guarded", frozenset({"engine"})

    def __init__(self, fits: Preflight) -> None:
        self._fits = fits

    def preflight(self, artifact: Any, options: Any) -> Preflight:
        return self._fits


def decided(fits: Preflight, strange: bool, trusted: bool) -> tuple[str, str]:
    artifact = Artifact("fp32", {}, (), {}, "fp32")
    found, advice = preflight._decided(
        Guarded(fits),
        artifact,
        Options(),
        ["engine"] if strange else [],
        trusted,  # type: ignore[arg-type]
    )
    return found.action, " ".join(advice)


@pytest.mark.parametrize(
    ("fits", "strange", "trusted", "action", "said"),
    [
        (Preflight(LOAD), False, False, LOAD, ""),
        (Preflight(LOAD, "built with 1, opened with 2"), False, False, LOAD, "built with 1"),
        (
            Preflight(REBUILD, "another GPU"),
            False,
            False,
            REBUILD,
            "from its graph for this run: another GPU",
        ),
        (Preflight(LOAD), True, False, REBUILD, "did not build it"),
        (Preflight(REBUILD, "another GPU"), True, False, REBUILD, "another GPU"),
        (Preflight(LOAD), True, True, LOAD, "--trust-engine"),
        (Preflight(REBUILD, "another GPU"), True, True, REFUSE, ""),
        (Preflight(REFUSE, "no"), False, True, REFUSE, "no"),
        (Preflight(LOAD), False, True, LOAD, ""),
    ],
)
def test_every_combination(fits: Preflight, strange: bool, trusted: bool, action: str, said: str) -> None:
    found, advice = decided(fits, strange, trusted)
    assert found == action and said in advice


def test_in_this_process_nothing_is_compiled_again(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = types.SimpleNamespace(
        target="guarded", precision="fp32", files={"engine": str(engine)}, forms=("engine",), fingerprint={},
        stored="fp32", advice=(), options={}, threads=0, graphs={}, way="",
    )  # fmt: skip
    manifest = types.SimpleNamespace(targets={"guarded/fp32": info}, dims=())
    monkeypatch.setattr(registry, "target", lambda name: Guarded(Preflight(LOAD)))
    with pytest.raises(Refused, match="did not build it") as caught:
        preflight.ready(Path, manifest, "guarded/fp32", None, Opening())  # type: ignore[arg-type]
    assert caught.value.code == "foreign-artifact" and "exporter compile" in caught.value.next
    trust.remember({"engine": engine})
    made = preflight.ready(Path, manifest, "guarded/fp32", None, Opening(device=1))  # type: ignore[arg-type]
    assert made.options.host_code and made.options.device == 1
    engine.write_bytes(b"other")
    made = preflight.ready(Path, manifest, "guarded/fp32", None, Opening(trusted=True))  # type: ignore[arg-type]
    assert not made.options.host_code, "trusted, and still without code for the host"
