"""``--on DEVICE``: the commands on another machine behind a real sshd, by its own Python without PyTorch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import xml.etree.ElementTree as Xml
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from exporter.bundle import Bundle
from exporter.host import files
from tests.cli_fakes.tool import Ended, assert_whole, contents, exported, run, spawn, until
from tests.device import there
from tests.fakes import sshd
from tests.fakes.sshd import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    reason = sshd.absent() or there.absent()
    if reason:
        pytest.skip(reason)
    made = Server(tmp_path_factory.mktemp("device")).start()
    yield made
    made.stop()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy with a name that a shell would stumble over."""
    return Path(shutil.copytree(exported("tiny", "openvino", "mobile"), tmp_path / "a b; touch 'x' $(touch y).bundle"))


def on(server: Server, *words: object, cwd: Path, **more: object) -> Ended:
    return run(*words, "--on", server.address, cwd=cwd, env={**server.here, **more})


def test_doctor_tells_all_of_it_beforehand(server: Server, tmp_path: Path) -> None:
    found = on(server, "doctor", "--json", cwd=tmp_path)
    assert found.code == 3, found
    assert any("onnx is not installed" in text and f"{there.PYTHON} -m pip install onnx" in text
               for text in found.json["problems"])  # fmt: skip
    assert not any("torch" in text for text in found.json["problems"]), "no device needs it"
    assert found.json["versions"]["numpy"] != "absent" and found.json["machine"]["in use"] == "by nobody"
    device = found.json["device"]
    assert device["label"] == server.label and device["cores"] >= 1 and device["memory_mb"] > 0
    said = on(server, "doctor", cwd=tmp_path)
    assert all(line.startswith(f"{server.label} | ") for line in said.out.splitlines()), said
    assert "throttling" in said.out and "governor" in said.out


def test_doctor_tells_all_that_a_bare_python_lacks(server: Server, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {there.PYTHON} -I -S "$@"\n')
    python.chmod(0o755)
    address = f"{server.address.partition('?')[0]}?python={python}"
    looked = run("doctor", "--on", address, "--json", cwd=tmp_path, env=server.here)
    base, *runtimes = looked.json["problems"]
    assert looked.code == 3 and base.startswith("numpy>=1.26, polygraphy") and "pip install 'numpy>=1.26'" in base
    assert {text.partition(" is not")[0] for text in runtimes} >= {"mobile: onnxruntime", "openvino: openvino"}
    assert any(text.startswith("tensorrt: ") for text in looked.json["elsewhere"])
    assert looked.json["device"]["cores"] >= 1 and looked.json["device"]["before"].keys() >= {"governor", "mhz"}
    assert looked.json["machine"]["in use"] == "by nobody"


def test_a_configuration_for_logins_by_hand(server: Server, tmp_path: Path) -> None:
    by_hand = ("RemoteCommand tmux new -A", "SessionType none", "StdinNull yes", "ForkAfterAuthentication yes",
               "RequestTTY force")  # fmt: skip
    (tmp_path / "config").write_text("\n".join([*by_hand, (server.folder / "config").read_text()]))
    words = ("doctor", "--on", server.address, "--json")
    looked = run(*words, cwd=tmp_path, env={"EXPORTER_SSH_CONFIG": str(tmp_path / "config")})
    assert looked.json["versions"]["numpy"] != "absent", looked


def test_verify_says_there_what_it_says_here(server: Server, bundle: Path, tmp_path: Path) -> None:
    before = contents(bundle)
    found = on(server, "verify", bundle, "--json", "--junit", "r.xml", cwd=tmp_path)
    assert found.code == 0 and found.json["verdict"] == "PASS", found
    said, here = found.json, there.there("verify", bundle, "--json", cwd=tmp_path).json
    device = said.pop("device")
    assert device["label"] == server.label and device["after"].keys() == device["before"].keys()
    assert [hop["reason"] for hop in said["hops"]] == [None, None]
    assert said == here
    suites = Xml.parse(tmp_path / "r.xml").getroot()
    assert server.label in suites.get("name", "") and len(suites) == 2
    assert contents(bundle) == before and sorted(p.name for p in tmp_path.iterdir()) == [bundle.name, "r.xml"]
    assert not [path for path in server.home.rglob("*") if path.name in ("x", "y")]


def test_every_line_says_where_it_is_from(server: Server, bundle: Path, tmp_path: Path) -> None:
    said = on(server, "verify", bundle, "--target", "mobile", cwd=tmp_path)
    assert said.code == 0 and said.out.startswith(f"{server.label} | PASS"), said
    assert all(line.startswith(f"{server.label} | ") for line in said.out.splitlines())
    assert f"verify mobile/fp32 onnx on {server.label} ..." in said.err.splitlines()


def test_profile_copies_the_artifact_and_what_is_timed(bundle: Path, tmp_path: Path, server: Server) -> None:
    fresh = Server(tmp_path / "fresh").start()
    try:
        found = on(fresh, "profile", bundle, "--target", "openvino", "--seconds", 1, "--save", "--json", cwd=tmp_path)
        assert found.code == 0, found
        subjects = {subject["name"]: subject for subject in found.json["subjects"]}
        assert subjects["openvino"]["median_ms"] > 0 and subjects["eager"]["reason"] == "torch absent"
        (place,) = (fresh.kept / "bundles").iterdir()
        copied = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()} - {"manifest.json"}
        # Its outputs are so few that they are scores: their errors count in the usual size over the cases of one scale.
        assert {name.split("/")[1].split("-")[0] for name in copied if name.startswith("cases/")} == {"normal"}
        assert {name.split("/")[0] for name in copied} == {"cases", "targets"}
        assert not [name for name in copied if "mobile" in name]
    finally:
        fresh.stop()
    held = assert_whole(bundle)
    (name,) = [name for name in held.manifest.reports if name.startswith("profile-")]
    report = json.loads(held.read(held.manifest.reports[name]))
    assert report["device"]["label"] == fresh.label and report["subjects"][1]["raw"]["blocks"]


def test_what_is_there_is_not_copied_again(server: Server, bundle: Path, tmp_path: Path) -> None:
    on(server, "verify", bundle, cwd=tmp_path)
    files_there = {p: p.stat().st_mtime_ns for p in (server.kept / "bundles").rglob("*.safetensors")}
    again = on(server, "verify", bundle, cwd=tmp_path)
    assert again.code == 0 and "copy ..." not in again.err.splitlines() and files_there
    assert {p: p.stat().st_mtime_ns for p in (server.kept / "bundles").rglob("*.safetensors")} == files_there


def test_run_brings_the_output_back(server: Server, bundle: Path, tmp_path: Path) -> None:
    given = tmp_path / "in; touch 'z' \n$(touch w).npz"
    np.savez(given, x=np.ones((3, 4), np.float32))
    output = tmp_path / 'out "put".npz'
    found = on(server, "run", bundle, given, "--target", "mobile", "-o", output, "--json", cwd=tmp_path)
    assert found.code == 0 and found.json["output"] == str(output), found
    here = there.there("run", bundle, given, "--target", "mobile", "-o", "here.npz", cwd=tmp_path)
    assert here.code == 0
    assert np.array_equal(files.read(output)["y"], files.read(tmp_path / "here.npz")["y"])
    assert not list(server.kept.glob("inputs-*")), "what was lent is gone"
    assert not [p for p in [*server.home.rglob("*"), *tmp_path.iterdir()] if p.name in ("z", "w")]


def test_an_input_that_does_not_fit_is_told_with_its_name_here(server: Server, bundle: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "wrong.npz", z=np.ones(3, np.float32))
    found = on(server, "run", bundle, "wrong.npz", "--target", "mobile", "-o", "o.npz", cwd=tmp_path)
    assert found.code == 2 and "wrong.npz" in found.err and server.label in found.err, found
    assert str(server.home) not in found.err and not (tmp_path / "o.npz").exists()


def test_compile_brings_the_artifact_back(server: Server, bundle: Path, tmp_path: Path) -> None:
    before = Bundle.open(bundle).manifest
    found = on(server, "compile", bundle, "--target", "openvino", "--json", cwd=tmp_path)
    assert found.code == 0 and found.json["bundle"] == str(bundle), found
    assert found.json["verify"]["device"]["label"] == server.label
    after = assert_whole(bundle).manifest
    made = after.targets["openvino/fp32"]
    assert made.status == "compiled" and made.forms and made.fingerprint
    assert after.targets["mobile/fp32"] == before.targets["mobile/fp32"]
    assert there.there("verify", bundle, "--target", "openvino", cwd=tmp_path).code == 0


def test_what_was_never_compiled_is_compiled_there(server: Server, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(exported("tiny", "mobile"), tmp_path / "tiny.bundle"))
    found = on(server, "compile", bundle, "--target", "openvino", cwd=tmp_path)
    assert found.code == 0, found
    assert set(assert_whole(bundle).manifest.targets) == {"mobile/fp32", "openvino/fp32"}


def test_options_that_need_this_machine_are_refused(server: Server, bundle: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.ones((5, 4), np.float32))
    said = on(server, "verify", bundle, "--samples", "in.npz", cwd=tmp_path).refused("bad-option")
    assert "--samples is for this machine" in said
    on(server, "profile", bundle, "--model", "m.py:f", cwd=tmp_path).refused("bad-option")


def test_two_users_wait_for_each_other(server: Server, bundle: Path, tmp_path: Path) -> None:
    words = ("profile", bundle, "--target", "mobile", "--on", server.address, "--json")
    first = spawn(*words, "--seconds", 4, cwd=tmp_path, env=server.here)
    lock = server.home / "exporter-device.lock"
    until(lambda: lock.exists() and b"exporter profile" in lock.read_bytes())
    looked = on(server, "doctor", "--json", cwd=tmp_path)
    assert "has it" in looked.json["machine"]["in use"] and "exporter profile" in looked.json["machine"]["in use"]
    second = on(server, "verify", bundle, "--target", "mobile", cwd=tmp_path)
    assert second.code == 0 and "wait ..." in second.err.splitlines(), second
    assert first.wait() == 0


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter of Python 3.10 with a device's packages, in the last versions that there are for it."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [*versions.glob("3.10.*/bin/python3.10"), *map(Path, filter(None, [shutil.which("python3.10")]))]
    if not found:
        pytest.skip("no Python 3.10 here: python3.10 on the path, or one of pyenv's")
    made = tmp_path_factory.mktemp("oldest") / "bin" / "python"
    subprocess.run([found[0], "-m", "venv", made.parents[1]], check=True)
    packages = ("numpy", "polygraphy>=0.53,<0.54", "safetensors", "onnxruntime", "openvino")
    subprocess.run([made, "-m", "pip", "install", "-q", *packages], check=True)
    return made


@pytest.mark.slow
def test_python_3_10_is_enough(server: Server, bundle: Path, oldest: Path, tmp_path: Path) -> None:
    address = f"{server.address.partition('?')[0]}?python={oldest}"
    there_too = partial(run, cwd=tmp_path, env=server.here)
    looked = there_too("doctor", "--on", address, "--json")
    problems = looked.json["problems"]
    assert looked.json["machine"]["python"].startswith("3.10.") and not any("broken" in text for text in problems)
    assert not any(text.startswith(("mobile", "openvino")) for text in problems), problems
    assert there_too("verify", bundle, "--on", address).code == 0
    made = there_too("compile", bundle, "--target", "openvino", "--on", address)
    assert made.code == 0, made
    found = there_too("profile", bundle, "--on", address, "--seconds", 2, "--layers", "--json")
    assert found.code == 0, found
    assert all(subject["median_ms"] > 0 for subject in found.json["subjects"] if subject["name"] != "eager")
    np.savez(tmp_path / "in.npz", x=np.ones((3, 4), np.float32))
    given = there_too("run", bundle, "in.npz", "--target", "mobile", "-o", "out.npz", "--on", address)
    assert given.code == 0 and files.read(tmp_path / "out.npz")["y"].size, given


def test_looking_at_a_device_that_is_none(tmp_path: Path) -> None:
    said = run("doctor", "--on", "ssh://-oProxyCommand=touch", cwd=tmp_path).refused("bad-device")
    assert "docs" not in said and list(tmp_path.iterdir()) == []
