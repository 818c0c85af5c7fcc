"""Bad input from people: refused before any work, in four parts, with exit code 2, and nothing is written or run."""

from __future__ import annotations

import ctypes
import io
import json
import os
import pickle
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest

from tests.cli_fakes.tool import CHECKPOINT, contents, copied, exported, quick, run


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The folder a person stands in: whatever is refused leaves it as it was."""
    return tmp_path


def refused(here: Path, code: str, *arguments: object) -> str:
    """Runs a command that must be refused, plainly and with ``--json``; the folder must stay as it is."""
    before = contents(here)
    plain = quick(*arguments, cwd=here).refused(code)
    machine = quick(*arguments, "--json", cwd=here)
    assert machine.code == 2
    error = machine.json
    assert list(error) == ["schema", "code", "what", "where", "why", "next"]
    assert error["schema"] == "exporter.error/1" and error["code"] == code
    assert all(isinstance(part, str) and part for part in error.values()), error
    assert machine.err == ""
    assert " ".join(error["what"].split()) in plain
    assert contents(here) == before
    return plain


# ------------------------------------------------------------------------------------------------------- names


def test_a_misspelt_model_names_the_nearest(here: Path) -> None:
    said = refused(here, "unknown-model", "fake-good", "tiny-audo")
    assert "'tiny-audo'" in said and "nearest: tiny-audio" in said and "exporter models" in said
    assert "gtcrn-stream" in refused(here, "unknown-model", "fake-good", "gtcrn-straem")
    assert "nearest" not in refused(here, "unknown-model", "fake-good", "zzzzzz")


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "tiny\n", "[red]tiny[/]", "x" * 5000, "GTCRN"])
def test_a_model_name_can_be_anything(here: Path, name: str) -> None:
    refused(here, "unknown-model", "fake-good", name)


def test_a_misspelt_target_names_the_nearest(here: Path) -> None:
    said = refused(here, "bad-usage", "fake-god", "tiny")
    assert "fake-god" in said and "fake-good" in said
    assert "openvino" in refused(here, "bad-usage", "opnevino", "gtcrn")


@pytest.mark.slow
def test_a_misspelt_target_of_a_bundle_names_what_it_holds(here: Path) -> None:
    bundle = copied(here)
    for command in (("verify",), ("profile",)):
        assert "fake-good" in refused(here, "unknown-target", *command, bundle, "--target", "fake-godo")
    said = refused(here, "unknown-target", "run", bundle, "in.wav", "--target", "fake-godo", "-o", "out.wav")
    assert "nearest: fake-good" in said
    assert "nearest: fake-good" in refused(here, "unknown-target", "compile", bundle, "--target", "fake-godo")


@pytest.mark.parametrize(
    "arguments",
    [
        ["fake-good"],
        ["fake-good", "tiny", "--no-such-option"],
        ["fake-good", "tiny", "--seed", "seven"],
        ["fake-good", "tiny", "--threads", "-1"],
        ["verify"],
        ["run", "x.bundle", "in.wav"],
        ["profile", "x.bundle", "--seconds", "0"],
        ["frobnicate"],
    ],
)
def test_usage(here: Path, arguments: list[str]) -> None:
    assert "--help" in refused(here, "bad-usage", *arguments)


@pytest.mark.parametrize("option", ["--timeout", "--memory"])
@pytest.mark.parametrize("value", ["0", "-5", "nan"])
def test_a_limit_that_is_none_is_refused(here: Path, option: str, value: str) -> None:
    """A limit of nothing is a mistake of typing, not a stage that takes too long."""
    if option == "--memory" and value == "nan":
        refused(here, "bad-usage", "fake-good", "tiny", option, value)
        return
    refused(here, "bad-option", "fake-good", "tiny", option, value)


def test_a_misspelt_option_of_the_definition(here: Path) -> None:
    said = refused(here, "bad-option", "fake-good", "tiny", "--set", "widht=5")
    assert "nearest: width" in said and "options of tiny: width" in said
    assert "none" in refused(here, "bad-option", "fake-good", "tiny-other", "--set", "width=5")
    assert "KEY=VALUE" in refused(here, "bad-option", "fake-good", "tiny", "--set", "width")
    refused(here, "bad-option", "fake-good", "tiny", "--set", "=5")


def test_a_precision_that_the_target_has_not(here: Path) -> None:
    said = refused(here, "unsupported-precision", "fake-good", "tiny", "--precision", "fp61")
    assert "'fp61'" in said and "it offers fp32" in said and "nearest: fp32" not in said.split("why")[1]
    bundle = copied(here)
    refused(here, "unsupported-precision", "compile", bundle, "--target", "fake-good", "--precision", "int3")


def test_an_unknown_code_names_the_nearest(here: Path) -> None:
    said = quick("explain", "bad-dmi", cwd=here).refused("unknown-code")
    assert "nearest: bad-dim" in said
    quick("explain", "", cwd=here).refused("unknown-code")


# -------------------------------------------------------------------------------------------------------- dims


@pytest.mark.parametrize(
    "text",
    ["T", "T=", "T=five", "T=1", "T=10", "T=2:5", "T=5:2:9", "T=2:9:5", "T=2:5:9:0", "T=2:5:9:-1", "T=2:5:9:3",
     "T=2:5:9:1:1", "T=-2", "T=2.5", "T=1e1", "T=0:5:9", "T=2:5:10", "t=5", "N=5", "=5", "", "T=99999999999999999999"],
)  # fmt: skip
def test_a_bad_dim_says_what_is_allowed(here: Path, text: str) -> None:
    said = refused(here, "bad-dim", "fake-good", "tiny", "--dim", text)
    assert "2:5:9" in said or "2..9" in said or "1 <= MIN <= OPT <= MAX" in said


def test_a_dim_given_twice(here: Path) -> None:
    assert "twice" in refused(here, "bad-dim", "fake-good", "tiny", "--dim", "T=5", "--dim", "T=6")


# ------------------------------------------------------------------------------------------------------- files


def test_missing_files(here: Path) -> None:
    assert "no.pt" in refused(here, "missing-file", "fake-good", "tiny", "--checkpoint", "no.pt")
    assert "no.npz" in refused(here, "missing-file", "fake-good", "tiny", "--samples", "no.npz")
    (here / "empty").mkdir()
    assert "empty" in refused(here, "missing-file", "fake-good", "tiny", "--samples", "empty")
    bundle = copied(here)
    assert "no.npz" in refused(here, "missing-file", "run", bundle, "no.npz", "--target", "fake-good", "-o", "out.npz")
    for command in ("verify", "profile"):
        assert "no.pt" in refused(here, "missing-file", command, bundle, "--checkpoint", "no.pt")


@pytest.mark.parametrize("command", [("verify",), ("profile",), ("inspect",), ("compile", "--target", "fake-good")])
def test_no_bundle_there(here: Path, command: tuple[str, ...]) -> None:
    (here / "file").write_text("a file")
    (here / "folder").mkdir()
    (here / "folder" / "mine.txt").write_text("mine")
    refused(here, "missing-file", command[0], "no.bundle", *command[1:])
    refused(here, "not-a-bundle", command[0], "file", *command[1:])
    refused(here, "not-a-bundle", command[0], "folder", *command[1:])


def test_a_folder_as_checkpoint(here: Path) -> None:
    (here / "weights").mkdir()
    refused(here, "missing-file", "fake-good", "tiny", "--checkpoint", "weights")


def test_a_bundle_of_a_newer_version(here: Path) -> None:
    bundle = copied(here)
    manifest = bundle / "manifest.json"
    value = json.loads(manifest.read_text())
    family, version = value["schema"].split("/")
    value["schema"] = f"{family}/{int(version) + 1}"
    manifest.write_text(json.dumps(value))
    for command in (
        ("verify", bundle),
        ("profile", bundle),
        ("inspect", bundle),
        ("compile", bundle, "--target", "fake-good"),
        ("run", bundle, "in.npz", "--target", "fake-good", "-o", "out.npz"),
        ("fake-good", "tiny", "-o", bundle),
        ("fake-good", "tiny", "-o", bundle, "--replace"),
    ):
        refused(here, "newer-schema", *command)


def test_the_second_model_into_the_bundle_of_the_first(here: Path) -> None:
    bundle = copied(here)
    said = refused(here, "other-model", "fake-good", "tiny-other", "-o", bundle)
    assert "holds tiny, not tiny-other" in said and "-o tiny-other.bundle" in said and "--replace" in said


def test_another_graph_into_a_bundle(here: Path) -> None:
    bundle = copied(here)
    before = contents(here)
    ended = quick("fake-good", "tiny", "-o", bundle, "--seed", 7, "--no-profile", cwd=here)
    assert "another graph" in ended.refused("other-graph") and "--replace" in ended.err
    assert contents(here) == before


# ------------------------------------------------------------------------------------------------ output folders


def test_a_folder_that_is_not_ours_is_refused_and_not_emptied(here: Path) -> None:
    theirs = here / "thesis"
    (theirs / "graphs").mkdir(parents=True)
    (theirs / "graphs" / "figure-0123456789ab.png").write_bytes(b"\x89PNG")
    (theirs / "manifest.json").write_text('{"name": "an application of theirs"}')
    (theirs / "link").symlink_to(here)
    for more in ([], ["--replace"]):
        assert "thesis" in refused(here, "foreign-folder", "fake-good", "tiny", "-o", "thesis", *more)


def test_a_file_as_output(here: Path) -> None:
    (here / "out").write_text("precious")
    for more in ([], ["--replace"]):
        assert "is a file" in refused(here, "foreign-folder", "fake-good", "tiny", "-o", "out", *more)


def test_an_output_whose_parent_is_absent(here: Path) -> None:
    assert "mkdir -p" in refused(here, "unwritable-folder", "fake-good", "tiny", "-o", "no/such/out")


def without_override() -> None:
    """Takes from root, in a child, the power to write where it may not."""
    pr_capbset_drop, cap_dac_override = 24, 1
    ctypes.CDLL(None).prctl(pr_capbset_drop, cap_dac_override, 0, 0, 0)


def test_a_parent_that_is_read_only(here: Path) -> None:
    closed = here / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    try:
        before = contents(here)
        ended = run("fake-good", "tiny", "-o", closed / "out", cwd=here, preexec_fn=without_override)
        assert "cannot be written" in ended.refused("unwritable-folder")
        assert contents(here) == before
    finally:
        closed.chmod(0o755)


def test_a_bundle_that_is_read_only(here: Path) -> None:
    bundle = copied(here)
    bundle.chmod(0o555)
    try:
        before = contents(here)
        ended = run("fake-good", "tiny", "-o", bundle, cwd=here, preexec_fn=without_override)
        ended.refused("unwritable-folder")
        assert contents(here) == before
    finally:
        bundle.chmod(0o755)


# ------------------------------------------------------------------------------------------ inputs of `run`


def recording(path: Path, rate: int = 16000, channels: int = 1, width: int = 2, seconds: float = 0.5) -> Path:
    samples = np.random.default_rng(0).integers(-9000, 9000, (int(rate * seconds), channels)).astype("<i2")
    with wave.open(str(path), "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(width)
        out.setframerate(rate)
        out.writeframes(samples.tobytes()[: samples.size * width] if width < 2 else samples.tobytes() * (width // 2))
    return path


def cut(path: Path, size: int) -> Path:
    path.write_bytes(path.read_bytes()[:size])
    return path


def archive(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)
    return path


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch payload-ran",)


def pickled(path: Path) -> Path:
    path.write_bytes(pickle.dumps(Payload()))
    return path


def pickled_array(path: Path) -> Path:
    held = np.empty(1, object)
    held[0] = Payload()
    buffer = io.BytesIO()
    np.savez(buffer, x=held)
    path.write_bytes(buffer.getvalue())
    return path


ROWS = np.zeros((5, 4), np.float32)
INPUTS = {
    "wrong-rate": ("tiny-audio", lambda p: recording(p / "in.wav", rate=44100), "44100"),
    "stereo": ("tiny-audio", lambda p: recording(p / "in.wav", channels=2), "2 channels"),
    "8-bit": ("tiny-audio", lambda p: recording(p / "in.wav", width=1), "8 bits"),
    "header-cut": ("tiny-audio", lambda p: cut(recording(p / "in.wav"), 30), "cannot be read"),
    "data-cut": ("tiny-audio", lambda p: cut(recording(p / "in.wav"), 4001), "cannot be read"),
    "data-cut-even": ("tiny-audio", lambda p: cut(recording(p / "in.wav"), 4000), "cannot be read"),
    "nothing-in-it": ("tiny-audio", lambda p: cut(recording(p / "in.wav"), 0), "cannot be read"),
    "no-samples": ("tiny-audio", lambda p: recording(p / "in.wav", seconds=0), ""),
    "too-long": ("tiny-audio", lambda p: recording(p / "in.wav", seconds=20), "2:5:900"),
    "npz-named-wav": ("tiny-audio", lambda p: shutil.move(archive(p / "in.npz", x=ROWS), p / "in.wav"), "read"),
    "a-recording-for-rows": ("tiny", lambda p: recording(p / "in.wav"), "input x is missing"),
    "other-ending": ("tiny", lambda p: shutil.move(archive(p / "in.npz", x=ROWS), p / "in.mat"), ".mat"),
    "no-ending": ("tiny", lambda p: shutil.move(archive(p / "in.npz", x=ROWS), p / "in"), "nothing"),
    "wrong-name": ("tiny", lambda p: archive(p / "in.npz", X=ROWS), "which is no input"),
    "wrong-shape": ("tiny", lambda p: archive(p / "in.npz", x=ROWS[:, :3]), "(5, 3)"),
    "wrong-rank": ("tiny", lambda p: archive(p / "in.npz", x=ROWS[0]), "(4,)"),
    "dim-too-large": ("tiny", lambda p: archive(p / "in.npz", x=np.zeros((10, 4), np.float32)), "T would be 10"),
    "dim-too-small": ("tiny", lambda p: archive(p / "in.npz", x=ROWS[:1]), "T would be 1"),
    "dim-zero": ("tiny", lambda p: archive(p / "in.npz", x=ROWS[:0]), "T would be 0"),
    "wrong-type": ("tiny", lambda p: archive(p / "in.npz", x=ROWS.astype(np.float64)), "float64"),
    "text": ("tiny", lambda p: archive(p / "in.npz", x=np.full((5, 4), "a")), "x"),
    "nan": ("tiny", lambda p: archive(p / "in.npz", x=ROWS * np.nan), "NaN"),
    "infinite": ("tiny", lambda p: archive(p / "in.npz", x=ROWS + np.inf), "infinite"),
    "pickle": ("tiny", lambda p: pickled(p / "in.npz"), "cannot be read"),
    "pickled-array": ("tiny", lambda p: pickled_array(p / "in.npz"), "cannot be read"),
    "npz-cut": ("tiny", lambda p: cut(archive(p / "in.npz", x=ROWS), 90), "cannot be read"),
    "npy-named-npz": ("tiny", lambda p: np.save(p / "a.npy", ROWS) or shutil.move(p / "a.npy", p / "in.npz"), "read"),
    "bad-safetensors": ("tiny", lambda p: cut(pickled(p / "in.safetensors"), 50), "cannot be read"),
    "more-than-asked": ("tiny", lambda p: archive(p / "in.npz", x=ROWS, y=ROWS), "y"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_that_does_not_fit(here: Path, name: str) -> None:
    model, make, word = INPUTS[name]
    path = Path(str(make(here) or here / "in.npz"))
    (here / "out.npz").write_bytes(b"an older result")
    before = contents(here)
    ended = quick("run", exported(model), path, "--target", "fake-good", "-o", "out.npz", cwd=here)
    assert word in ended.refused("wrong-sample-rate" if name == "wrong-rate" else "bad-sample")
    assert contents(here) == before, "nothing written, and nothing of the file run"


def test_an_input_that_does_not_fit_for_a_machine(here: Path) -> None:
    archive(here / "in.npz", x=ROWS * np.nan)
    refused(here, "bad-sample", "run", exported(), "in.npz", "--target", "fake-good", "-o", "out.npz")


@pytest.mark.parametrize("output", ["out.mp3", "out", "no/such/out.npz", "folder", "folder.npz", "out.wav"])
def test_an_output_that_cannot_be(here: Path, output: str) -> None:
    """Known before anything runs; rows are no recording, so they cannot be a ``.wav`` either."""
    archive(here / "in.npz", x=np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32))
    (here / "folder").mkdir()
    (here / "folder.npz").mkdir()
    refused(here, "bad-output", "run", exported(), "in.npz", "--target", "fake-good", "-o", output)


def test_an_input_that_fits(here: Path) -> None:
    """What the refusals above are worth: the same commands work on the right files."""
    archive(here / "in.npz", x=np.ones((5, 4), np.float32))
    assert quick("run", exported(), "in.npz", "--target", "fake-good", "-o", "out.npz", cwd=here).code == 0
    with np.load(here / "out.npz") as found:
        assert found["y"].shape == (5, 3)
    recording(here / "in.wav")
    ended = quick("run", exported("tiny-audio"), "in.wav", "--target", "fake-good", "-o", "out.wav", cwd=here)
    assert ended.code == 0, ended
    with wave.open(str(here / "out.wav")) as out:
        assert out.getparams()[:4] == (1, 2, 16000, 7936)  # whole hops
    assert sorted(p.name for p in here.iterdir()) == ["in.npz", "in.wav", "out.npz", "out.wav"]


@pytest.mark.parametrize(
    "name", ["pickle", *(pytest.param(name, marks=pytest.mark.slow) for name in ("nan", "dim-too-large", "wrong-name"))]
)
def test_samples_that_do_not_fit_an_export(here: Path, name: str) -> None:
    _, make, _ = INPUTS[name]
    make(here)
    refused(here, "bad-sample", "fake-good", "tiny", "--samples", "in.npz")
    bundle = copied(here)
    refused(here, "bad-sample", "verify", bundle, "--samples", "in.npz")


def test_junit_where_it_cannot_be_written(here: Path) -> None:
    refused(here, "bad-output", "verify", exported(), "--junit", "no/such/verdicts.xml")
    (here / "folder").mkdir()
    refused(here, "bad-output", "verify", exported(), "--junit", "folder")


# ------------------------------------------------------------------------------------------------- checkpoints


def spoiled(path: Path, how: str) -> Path:
    if how == "truncated":
        path.write_bytes(CHECKPOINT.read_bytes()[:70000])
    elif how == "payload":
        pickled(path)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("<html>404 Not Found</html>")
    return path


@pytest.mark.parametrize("how", ["payload", "empty", "text"])
def test_a_checkpoint_that_is_none(here: Path, how: str) -> None:
    path = spoiled(here / "weights.pt", how)
    before = contents(here)
    ended = quick("fake-good", "tiny", "--checkpoint", path, "--no-profile", cwd=here)
    assert ended.code == 2 and ended.out == "" and "Traceback" not in ended.err, ended
    assert "error[" in ended.err and "weights.pt" in ended.err
    assert contents(here) == before


@pytest.mark.skipif(not CHECKPOINT.exists(), reason="no published checkpoint at EXPORTER_DATA")
@pytest.mark.parametrize("how", ["truncated", "of-another-model"])
def test_a_checkpoint_of_gtcrn_for_another(here: Path, how: str) -> None:
    path = CHECKPOINT if how == "of-another-model" else spoiled(here / "weights.tar", how)
    before = contents(here)
    ended = quick("fake-good", "tiny", "--checkpoint", path, "--no-profile", cwd=here)
    assert ended.code == 2 and ended.out == "" and "Traceback" not in ended.err, ended
    assert contents(here) == before
