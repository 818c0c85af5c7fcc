"""``--on DEVICE``: the commands, as they are called here, and what they found there.

Each gives the object that the same command gives where it runs, and in it the device.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter import registry
from exporter.bundle import Bundle, Draft, editing
from exporter.candidate import added, key_of
from exporter.devices import emulation, received, shipping
from exporter.devices.connection import PIP, Connection, Lost, quoted
from exporter.devices.device import Device, found
from exporter.devices.label import held_back
from exporter.devices.session import Session, holder, lost, session
from exporter.errors import Incomplete, Refused
from exporter.hops import previews_of
from exporter.host import files
from exporter.latency.subjects import Extras
from exporter.manifest import Manifest, TargetInfo, decode
from exporter.manifest.limits import MAX_BYTES
from exporter.preflight import Opening
from exporter.run import refuse_output
from exporter.saved import save_report, still_true, with_report
from exporter.stages import Progress, silent
from exporter.use import use_page
from exporter.verification import chosen
from exporter.whole import whole

MOST_OUTPUT = 4 << 30
DIGEST = re.compile(r"-[0-9a-f]{12}(?=\.|$)")


def verify(
    on: str, path: Path, targets: Sequence[str], limits: Mapping[str, Any], progress: Progress = silent,
    save: bool = False, opening: Opening | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Verifies a bundle's artifacts on a device.

    Args:
        on: the device's address.
        path: the bundle's folder, here.
        targets: only these; all of them when empty.
        limits: ``timeout`` in seconds and ``memory`` in megabytes (None is what the device has) of each stage there.
        progress: told what happens.
        save: whether to keep the report in the bundle, under the device's name.
        opening: how artifacts are opened there.

    Raises:
        Refused, Incomplete, StageFailed: what the device, or the way to it, refuses.
    """
    device, bundle = found(on), Bundle.open(path)
    keys = chosen(bundle, targets)
    request = {"targets": keys, **limits, **_opened(opening)}
    with session(device, shipping.to_verify(bundle, keys), path, f"exporter verify {path.name}", progress) as held:
        with _labelled(device, held) as label:
            value = received.checked(held.work("verify", request), received.VERIFY)
    value |= label
    if save:
        save_report(path, "verify", keys, bundle.manifest, value, held.label)
    return dict(value)


def profile(
    on: str, path: Path, targets: Sequence[str], limits: Mapping[str, Any], progress: Progress = silent,
    save: bool = False, opening: Opening | None = None, checkpoint: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Times a bundle's artifacts on a device; the arguments are those of :func:`verify`.

    Args:
        limits: ``seed``, ``threads``, ``seconds`` and ``extras`` (:meth:`exporter.latency.subjects.Extras.as_json`).
        checkpoint: weights, so that eager can be timed where the device has PyTorch.
    """
    device, bundle = found(on), Bundle.open(path)
    _refuse_emulated(device)
    keys = chosen(bundle, targets)
    request = {"targets": keys, "save": save, "checkpoint": "", **limits, **_opened(opening)}
    shipment = shipping.to_profile(bundle, keys, bool(limits["extras"]["layers"]))
    with session(device, shipment, path, f"exporter profile {path.name}", progress) as held:
        if checkpoint is not None:
            request["checkpoint"] = checkpoint.name
            held.lend(checkpoint, "checkpoint", checkpoint.name)
        with _labelled(device, held) as label:
            value = received.checked(held.work("profile", request), {"shown": received.PROFILE})
        kept = received.checked(value["kept"], received.PROFILE) | label if save else {}
    slowed = held_back(label["device"]["before"], label["device"]["after"])
    warned = [slowed.as_json()] if slowed else []
    value["shown"]["warnings"] += warned
    if save:
        kept["warnings"] += warned
        kind = Extras.from_json(limits["extras"]).kind
        save_report(path, kind, keys, bundle.manifest, kept, held.label)
    return {**value["shown"], **label}


def run(
    on: str, path: Path, target: str, given: Path, output: Path, dims: Sequence[str] = (), progress: Progress = silent,
    opening: Opening | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Runs one real input through an artifact on a device; the output is written here.

    Args:
        on: the device's address.
        path: the bundle's folder, here.
        target: which of its artifacts.
        given: a file, or a folder of pictures named after the inputs.
        output: the file to write.
        dims: ``NAME=COUNT`` of parts whose repetitions are chosen at run time.
        progress: told what happens.
        opening: how artifacts are opened there.
    """
    device, bundle = found(on), Bundle.open(path)
    key = chosen(bundle, [target])[0]
    refuse_output(bundle.manifest, output)
    parts = _parts(given)
    request = {"target": key, "dims": list(dims), "output": f"output{output.suffix.lower()}", **_opened(opening)}
    request["input"] = parts[0].name if parts == [given] else "."
    with session(device, shipping.to_run(bundle, key), path, f"exporter run {path.name}", progress) as held:
        for part in parts:
            held.lend(part, "input", part.name)
        with _labelled(device, held) as label:
            value = received.checked(held.work("run", request), received.RUN)
        with whole(output) as staging:
            held.fetch(staging, MOST_OUTPUT, output=request["output"])
    return {**value, **label}


def compile_(
    on: str, path: Path, target_name: str, precision: str, limits: Mapping[str, Any], progress: Progress = silent,
    extra: Mapping[str, Any] | None = None, device_index: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Compiles a bundle's graph on a device, verifies it there, and brings the artifact back into the bundle.

    Args:
        on: the device's address.
        path: the bundle's folder, here.
        target_name: the target.
        precision: the precision.
        limits: ``timeout`` and ``memory`` of each stage there.
        progress: told what happens.
        extra: options of the target.
        device_index: which accelerator of the device.
    """
    device, key = found(on), key_of(target_name, precision)
    registry.target(target_name)
    Bundle.open(path)
    request = {"target": target_name, "precision": precision, "extra": dict(extra or {}), "device": device_index}
    with editing(path, f"exporter compile --on {device.address}") as draft:
        assert draft.old is not None
        shipment = shipping.to_compile(draft.old, key, _apart(draft.old.manifest, key))
        with session(device, shipment, path, f"exporter compile {path.name}", progress) as held:
            with _labelled(device, held) as label:
                value = received.checked(held.work("compile", {**request, **limits}), {"bytes": int})
            shown = received.checked(value["shown"], received.EXPORT)
            info = _brought(draft, held, key, value["bytes"])
        manifest = draft.old.manifest
        # What the artifact before gave for real inputs is not what this one gives.
        reports = {name: file for name, file in manifest.reports.items() if name != previews_of(key)}
        manifest = replace(manifest, targets=manifest.targets | {key: info}, reports=reports)
        manifest = still_true(manifest, draft.old.manifest.targets)
        manifest = with_report(draft, manifest, "verify", [key], {**shown["verify"], **label}, held.label)
        draft.derived("USE.md", use_page(manifest))
        draft.commit(manifest)
    return {**shown, **label, "verify": {**shown["verify"], **label}, "bundle": str(path)}


def doctor(on: str, progress: Progress = silent) -> dict[str, Any]:
    """What a device is, and what stands in the way there; nothing is copied but our own package."""
    device = found(on)
    try:
        return _looked_at(device, progress)
    except Lost as error:
        raise lost(device, "", error, "looking") from None


def _looked_at(device: Device, progress: Progress) -> dict[str, Any]:
    with received.spoken_by(device.address), Connection(device) as line:
        progress("connect", {"what": line.label})
        line.open()
        hello, runtimes = line.hello, _runtimes()
        answer = line.ask("doctor", runtimes=[name for names in runtimes.values() for name in names])
        received.checked(answer, {"facts": dict, "moment": dict, "lacking": [str]})
        unprepared = _unprepared(hello, runtimes, answer["lacking"]) if hello["missing"] else None
        value = received.checked(unprepared or answer.get("value"), received.DOCTOR)
        owner = answer.get("owner")
    problems = [text.replace(PIP, line.install) for text in value["problems"] if not text.startswith("tracing:")]
    notes = [text.replace(PIP, line.install) for text in value["elsewhere"]]
    value |= {"problems": problems, "elsewhere": notes, "ok": not problems}
    value["machine"] |= {"interpreter": hello["executable"], "kept in": hello["folder"], "free_bytes": hello["free"],
                         "in use": holder(owner) if owner else "by nobody"}  # fmt: skip
    facts, moment = answer["facts"], answer["moment"]
    return {**value, "device": {**_address(device, line.label), **facts, "before": moment}}


def _runtimes() -> dict[str, list[str]]:
    """The distributions that each target computes with; what tracing needs as well is none of a device's."""
    traced, found = emulation.requirements("trace"), {}
    for name in registry.target_names():
        with suppress(Incomplete):  # a target that is broken here
            extra = registry.target(name).extra or "trace"
            found[name] = [one for one in emulation.requirements(extra) if one not in traced]
    return found


def _unprepared(hello: Mapping[str, Any], runtimes: Mapping[str, list[str]], lacking: list[str]) -> dict[str, Any]:
    """The object of a device whose Python has not even what our own side imports."""
    needs, absent = hello["missing"], [(t, name) for t, names in runtimes.items() for name in names if name in lacking]
    said: dict[bool, list[str]] = {True: [], False: [f"{', '.join(needs)}: not installed there; {PIP}{quoted(needs)}"]}
    for target, name in absent:
        said[registry.target(target).prepares].append(f"{target}: {name} is not installed; {PIP}{name}")
    return {
        "schema": "exporter.doctor/1", "ok": False, "problems": said[False], "elsewhere": said[True],
        "machine": {"python": hello["python"]}, "versions": {},
    }  # fmt: skip


# ---- what all of them do


def _refuse_emulated(device: Device) -> None:
    """Refuses to time what has no clock of its own."""
    if device.emulated:
        raise Refused(
            "emulated-timings", f"{device.address.label} is emulated ({device.emulated}): its timings mean nothing",
            where=f"--on {device.address}", why="what an emulator takes for an instruction, no processor does",
            next="exporter verify BUNDLE --on arm64 for its answers; profile on a board, --on ssh://user@host",
        )  # fmt: skip


def _opened(opening: Opening | None) -> dict[str, Any]:
    opening = opening or Opening()
    return {"device": opening.device, "trust": opening.trusted, "options": dict(opening.extra or {})}


def _address(device: Device, label: str) -> dict[str, str]:
    emulated = {"emulated": device.emulated} if device.emulated else {}
    return {"address": str(device.address), "label": label, **emulated}


@contextmanager
def _labelled(device: Device, held: Session) -> Iterator[dict[str, Any]]:
    """What the device is, and how it fared before and after what happens inside."""
    facts = held.moment(everything=True)
    before, label = facts.pop("moment"), dict[str, Any]()
    yield label
    label["device"] = {**_address(device, held.label), **facts, "before": before, "after": held.moment()["moment"]}


def _parts(given: Path) -> list[Path]:
    """The files of an input, which is one, or a folder of them.

    Raises:
        Refused: ``missing-file``.
    """
    if given.is_dir():
        return sorted(path for path in given.iterdir() if path.is_file())
    if not given.is_file():
        files.read(given)  # refuses it as it does anywhere
    return [given]


def _apart(manifest: Manifest, key: str) -> str:
    import hashlib

    return hashlib.sha256(f"{manifest.key} {key}".encode()).hexdigest()


def _brought(draft: Draft, held: Session, key: str, size: int) -> TargetInfo:
    """The artifact that a device made, file by file into the draft. Which files there are says its manifest, which is
    held to every rule for a stranger's; what they are called here does not."""
    assert draft.old is not None
    folder = draft.work / "brought"
    folder.mkdir()
    held.fetch(folder / "manifest.json", min(size, MAX_BYTES), file="manifest.json")
    theirs = decode((folder / "manifest.json").read_bytes(), f"manifest.json on {held.label}")
    if key not in theirs.targets or theirs.key != draft.old.manifest.key:
        raise received.bad_answer(f"its bundle holds no {key} of this graph")
    info, ours = theirs.targets[key], draft.old.manifest.files

    def local(names: Mapping[str, str], place: str) -> dict[str, str]:
        new = {role: name for role, name in names.items() if ours.get(name) != theirs.files[name]}
        paths = {role: _fetched(held, theirs, name, folder / place) for role, name in new.items()}
        return {**names, **added(draft, key if place == "files" else f"{key}/{place}", paths, folder / place)}

    calibration = info.calibration
    if calibration is not None and any(ours.get(name) != theirs.files[name] for name in calibration.files):
        raise received.bad_answer("it calibrated on what it was not given")
    return replace(info, files=local(info.files, "files"), graphs=local(info.graphs, "graphs"))


def _fetched(held: Session, theirs: Manifest, name: str, folder: Path) -> Path:
    """A file of the device, whole and by its digest, under a leaf that is a plain name."""
    from exporter.graph import sha256

    leaf = DIGEST.sub("", name.rpartition("/")[2])
    path = folder / leaf
    if path.exists():
        raise received.bad_answer(f"two of its files are called {leaf!a}")
    folder.mkdir(exist_ok=True)
    info = theirs.files[name]
    held.fetch(path, info.bytes, file=name)
    if sha256(path) != info.sha256:
        raise received.bad_answer(f"{leaf!a} is not what its manifest says")
    return path
