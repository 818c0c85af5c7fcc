"""Verifies every built-in model's artifacts on arm64's own kernels, emulated, and writes docs/arm64.md.

``python -m tests.arm64 [NAME ...] [--again]``: all, or only these. Sizes are cut (``_dims``): every rule of the cases,
little arithmetic, since an emulator takes hundreds of times as long; all models take hours. What was found is kept in
``tests/arm64/found`` and gone on from. It is found anew of a definition, a runtime or a machine that changed, and with
``--again``. ``make arm64`` makes the machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exporter import registry
from exporter.devices import emulation
from exporter.graph import sha256
from exporter.spec import Dim, ModelDef
from tests.bench.figure import EXPORTER, ROOT
from tests.fakes.lab import cut

PAGE, FOUND = ROOT / "docs" / "arm64.md", ROOT / "tests" / "arm64" / "found"
TARGETS = ("mobile", "openvino")
SECONDS = 7200
FIRST = "Each with the first result above what is allowed; the table has the largest."
LARGE = 32  # pixels along a side, at least: a network for whole images
# The operator that differs, where one was looked for and found; each is a strict xfail of
# tests/exporter/devices/test_emulation.py.
NAMED = {
    ("quality-aware-fusion", "openvino"): "`Softplus` there is off by up to 0.0004 far below zero",
    ("vqa", "mobile"): "`Conv` on images of one pixel (squeeze and excitation) rounds its sums more coarsely there",
}
STEPS = 2  # of what is unrolled: the steps after are the same operators on the same weights

INTRODUCTION = """\
# On arm64

Every built-in model's artifacts, exported here and verified by `exporter verify BUNDLE --on arm64`: the runtimes' own
aarch64 wheels under qemu's user emulation ([devices.md](devices.md)). The kernels are those of a board, so the verdicts
count; timings would mean nothing and are refused. Sizes are cut to about three times the usual, those of networks for
whole images to the least two, and their iterations to 2 or 3; weights are seeded. Written by `python -m tests.arm64`
from what the commands said.

The number is the largest error over eager PyTorch's own, on arm64 and beside it on the machine that exported. The
ladder allows 4 on mobile and 16 on OpenVINO ([parity.md](parity.md)).
"""


def main(words: Sequence[str]) -> int:
    emulation.starter()
    FOUND.mkdir(exist_ok=True)
    names = [word for word in words if word != "--again"] or registry.model_names()
    for index, name in enumerate(names):
        if "--again" in words or _kept(name) is None:
            print(f"{index + 1}/{len(names)} {name}", flush=True)
            found = {"of": _key(name), **_verified(name)}
            (FOUND / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(_page({name: _kept(name) for name in registry.model_names()}), encoding="utf-8")
    return 0


def _kept(name: str) -> dict[str, Any] | None:
    """What was found of this very definition on this very machine, if anything was."""
    file = FOUND / f"{name}.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found if found.get("of") == _key(name) else None


def _key(name: str) -> str:
    """Of the definition, the sizes, and all that computes."""
    cuts = [*_dims(registry.model(name)), *_options(registry.model(name))]
    digest = hashlib.sha256(json.dumps([emulation.versions(), cuts], sort_keys=True).encode())
    for path in sorted(registry.model_sources(name)):
        digest.update(sha256(path).encode())
    return digest.hexdigest()[:12]


def _verified(name: str) -> dict[str, Any]:
    """What each target's artifact said here and there."""
    cuts = [word for dim in _dims(registry.model(name)) for word in ("--dim", dim)]
    cuts += [word for option in _options(registry.model(name)) for word in ("--set", option)]
    with tempfile.TemporaryDirectory(prefix="arm64-") as folder:
        bundle = str(Path(folder) / "it.bundle")
        found = {}
        for target in TARGETS:
            here = _said(target, name, "-o", bundle, "--no-profile", *cuts)
            there = _said("verify", bundle, "--target", target, "--on", "arm64", "--timeout", str(SECONDS))
            found[target] = {"here": _of(here.get("verify", here)), "there": _of(there)}
    return found


def _dims(definition: ModelDef) -> list[str]:
    """As everywhere in the tests, but for what is large at its least and for how often a loop runs."""
    return [f"{dim.name}={_cut(dim, dim.name in definition.repeats)}" for dim in definition.dims if not dim.fixed]


def _options(definition: ModelDef) -> list[str]:
    """As the definition has them, but for how often what is unrolled is repeated."""
    return [f"iterations={STEPS}"] if "iterations" in definition.options else []


def _cut(dim: Dim, repeats: bool) -> Dim:
    if repeats:
        return dataclasses.replace(dim, opt=STEPS, max=STEPS + 1)
    if dim.min < LARGE:
        return cut(dim)
    top = next(size for size in range(dim.min + 1, dim.max + 1) if dim.allows(size))
    return dataclasses.replace(dim, opt=dim.min, max=top)


def _said(*words: str) -> dict[str, Any]:
    began = time.monotonic()
    done = subprocess.run((EXPORTER, *words, "--json"), cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        said: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        said = {"verdict": "NO ANSWER", "what": (done.stderr or done.stdout)[-300:]}
    return {**said, "seconds": round(time.monotonic() - began, 1)}


def _of(said: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict of the compiled hop, its largest error, and why it is no better."""
    hop = next((hop for hop in said.get("hops", ()) if hop["hop"] == "compiled"), None)
    if hop is None:
        return {"verdict": "REFUSED" if "code" in said else said["verdict"], "worst": None, "why": said.get("what", "")}
    worst = (hop.get("worst") or {}).get("amplification")
    return {
        "verdict": hop["verdict"],
        "worst": worst,
        "why": hop["reason"] or "",
        "ran": (hop["precision"] or {}).get("ran"),
    }


def _page(found: Mapping[str, Mapping[str, Any] | None]) -> str:
    lines, asked = [INTRODUCTION], {name: it for name, it in found.items() if it is not None}
    for target in TARGETS:
        passed = sum(it[target]["there"]["verdict"] == "PASS" for it in asked.values())
        lines.append(f"**{target}**: {passed} of {len(asked)} PASS on arm64.")
    if len(asked) < len(found):
        lines.append(f"Not asked yet: {len(found) - len(asked)} of {len(found)} models.")
    heads = [f"{target}, {where}" for target in TARGETS for where in ("arm64", "here")]
    lines += ["", f"| model | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    lines += [
        f"| `{name}` | {' | '.join(_cell(it[t][w]) if it else '' for t in TARGETS for w in ('there', 'here'))} |"
        for name, it in found.items()
    ]
    others = [(n, t, it[t]["there"]) for n, it in asked.items() for t in TARGETS if it[t]["there"]["verdict"] != "PASS"]
    if others:
        lines += ["", "## What did not pass", "", FIRST, ""]
        lines += [f"- `{n}` on {t}: {said['verdict']}: {_why(said, NAMED.get((n, t)))}" for n, t, said in others]
    versions = emulation.versions()
    machine = ", ".join([versions.pop("qemu"), *(f"{name} {value}" for name, value in versions.items())])
    return "\n".join([*lines, "", f"With {machine}.", ""])


def _why(said: Mapping[str, Any], named: str | None) -> str:
    return ". ".join([" ".join(said["why"].split()), *([named] if named else [])])


def _cell(said: Mapping[str, Any]) -> str:
    return f"{said['verdict']} {said['worst']:.2f}" if said.get("worst") is not None else str(said["verdict"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
