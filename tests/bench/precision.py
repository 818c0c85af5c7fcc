"""Lower precisions: faster by how much, and at what cost, on models with real or trained weights."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.figure import CHECKPOINT, EXPORTER, ROOT, Figure, at_most

# A branch of the quality model, how it is trained here, and how much of fp32's time int8 may take.
BACKBONES: Mapping[str, tuple[str, Sequence[str], float]] = {
    "ViT": (
        "vit_tiny_patch16_224",
        ("--size", "224", "--held-out-size", "224", "--held-out-crops", "24", "--crops", "120", "--epochs", "10"),
        0.5,
    ),
    "ConvNeXt": ("convnext_tiny", ("--crops", "400", "--epochs", "5"), 0.5),
    "EfficientNet": ("efficientnet_b0", ("--crops", "400", "--epochs", "8"), 0.75),
}
SMALL = ("second_backbone=test_efficientnet", "feature_dim=64", "fusion=hierarchical")
UNDROPPED = ("dropout=0.0", "drop_path=0.0")
# Crops of each photograph that is held out to judge by, and of each that was trained on to take scales from.
JUDGED, CALIBRATED = 24, 8
# What ``auto`` is compared with an exhaustive run on: one of each family that is there in full, small enough to repeat.
FAMILIES: Mapping[str, Sequence[tuple[str, Sequence[str]]]] = {
    "openvino": (
        ("gtcrn-stream", ("--checkpoint", str(CHECKPOINT))),
        ("mdta", ()),
        ("extractor-efficientnet", ()),
        ("raft-conv-gru", ()),
        ("cost-aggregation", ()),
        ("fusion-attention", ()),
    ),
    "mobile": (("gtcrn", ("--checkpoint", str(CHECKPOINT))),),
}


def figures(folder: Path) -> list[Figure]:
    """Restormer in bf16, GTCRN in int8 on mobile, the quality model in int8 per backbone, and what ``auto`` picks."""
    found = [*_restormer(folder), *_gtcrn(folder)]
    if find_spec("timm") is not None and find_spec("skimage") is not None:
        for name in BACKBONES:
            found += _backbone(folder, name)
    for target, models in FAMILIES.items():
        for model, words in models:
            found.append(_auto(folder, target, model, words))
    return found


def _restormer(folder: Path) -> list[Figure]:
    said = _export(folder, "openvino", "restormer", "--dim", "H=128", "--dim", "W=128", "--precision", "bf16")
    ratio = _ratio(said, "openvino/bf16", "openvino")
    hop = _compiled(said)
    what = "`restormer` 128 x 128, openvino bf16 against our own fp32"
    note = f"{said['verdict']}, {_shares(hop)}; error {hop['worst']['amplification']:.2g}x eager's own in bf16"
    return [
        at_most(f"{what}: latency", 0.6, ratio["median"], interval=ratio["interval"], note=note),
        at_most(f"{what}: PSNR loss, seeded weights", 0.05, hop["facts"]["spent"]["losses"]["psnr"], " dB"),
    ]


def _gtcrn(folder: Path) -> list[Figure]:
    said = _export(folder, "mobile", "gtcrn", "--checkpoint", str(CHECKPOINT), "--precision", "int8")
    sizes = {s["name"]: s["bytes"] for s in said["profile"]["subjects"] if s["bytes"]}
    hop, ratio = _compiled(said), _ratio(said, "mobile/int8", "mobile")
    what = "`gtcrn`, published weights, real speech, mobile int8 against fp32"
    note = f"{said['verdict']}, {_shares(hop)}; latency {ratio['median']:.2f}x, {ratio['conclusion']}"
    return [
        at_most(f"{what}: file", 0.4, sizes["mobile/int8"] / sizes["mobile"], note=f"{sizes['mobile/int8']} bytes"),
        at_most(f"{what}: SI-SDR loss", 0.1, hop["facts"]["spent"]["losses"]["si-sdr"], " dB", note=note),
    ]


def _backbone(folder: Path, name: str) -> list[Figure]:
    """The quality model with one backbone and the smallest second one, trained here for minutes."""
    from model_defs.vqa.data import split

    backbone, training, bar = BACKBONES[name]
    sets = _sets(f"backbone={backbone}", *SMALL)
    trained = folder / f"trained-{name}"
    if not trained.is_dir():
        words = ("-o", str(trained), *sets, *_sets(*UNDROPPED), "--bf16", *training)
        _run(folder, sys.executable, "-m", "model_defs.vqa.train", *words)
    learnt, held_out = split()
    _pictures(folder / "judged", held_out, JUDGED, seed=7)
    _pictures(folder / "calibration", learnt, CALIBRATED, seed=11)
    given = ("--checkpoint", str(trained / "best.safetensors"), *sets, "--samples", str(folder / "judged"))
    given += ("--calibration", str(folder / "calibration"), "--dim", "batch=1")
    what, found = f"`vqa` with {name}, trained here, openvino int8 against fp32", list[Figure]()
    for threads in (2, 1):
        words = (*given, "--precision", "int8", "--threads", str(threads))
        said = _export(folder, "openvino", "vqa", *words, bundle=f"vqa-{name}", allow=(0, 1))
        hop, ratio = _compiled(said), _ratio(said, "openvino/int8", "openvino")
        note = f"{said['verdict']}, {_shares(hop)}, {hop['facts']['spent']['decibels']:.1f} dB"
        row = f"{what}, threads: {threads}: latency"
        found.append(at_most(row, bar, ratio["median"], interval=ratio["interval"], note=note))
    (srcc,) = [m for m in hop["facts"]["metrics"] if m["name"] == "srcc"]
    row = next(row for row in srcc["cases"].values() if row["against"] == "truth")
    lost = at_most(
        f"{what}: SRCC loss on {len(held_out) * JUDGED} crops held out", 0.01, round(-row["difference"], 6), "",
        note=f"eager's SRCC {row['eager']:.3f}",
    )  # fmt: skip
    if said["verdict"] != "PASS":  # then `auto` has to find what is faster
        told = _export(folder, "openvino", "vqa", *given, "--precision", "auto", bundle=f"vqa-{name}-auto")
        rows = {row["precision"]: row for row in told["auto"]["tried"]}
        picked = told["auto"]["chosen"]
        value = rows[picked]["median_ms"] / rows["fp32"]["median_ms"]
        note = f"it picked {picked}; int8 is {rows['int8']['verdict']}"
        auto = at_most(f"{what}: latency of what `auto` picks instead", bar, value, note=note)
        loss = at_most(f"{what}: SRCC loss of that", 0.01, round(rows[picked]["spent"]["losses"]["srcc"], 6), "")
        return [replace(figure, bar="none", met=True) for figure in found] + [auto, loss]
    return [*found, lost]


def _sets(*options: str) -> list[str]:
    return [word for option in options for word in ("--set", option)]


def _pictures(folder: Path, photographs: Sequence[int], crops: int, seed: int) -> None:
    """Distorted crops with their scores, a file each."""
    from model_defs.vqa.data import material

    if folder.is_dir():
        return
    folder.mkdir()
    made = material(photographs, crops, 224, seed)
    for index, (image, score) in enumerate(zip(made.images, made.scores, strict=True)):
        values = {"image": image.transpose(2, 0, 1)[None].astype(np.float32) / 255}
        np.savez(folder / f"crop-{index:03}.npz", **values, **{"truth/score": np.array([score], np.float32)})


def _auto(folder: Path, target: str, model: str, words: Sequence[str]) -> Figure:
    """What ``auto`` picks, beside the fastest of all precisions that pass when each is exported by itself."""
    told = _export(folder, target, model, *words, "--precision", "auto", bundle=f"{target}-{model}-auto")
    every, passed = f"{target}-{model}-every", []
    for row in told["auto"]["tried"]:  # each by itself, whatever auto said of it
        words_of = (EXPORTER, target, model, *words, "--precision", row["precision"], "--no-profile", "-o", every)
        passed += [row["precision"]] if _run(folder, *words_of, allow=(0, 1)).returncode == 0 else []
    keys = [word for precision in passed for word in ("--target", f"{target}/{precision}")]
    said = json.loads(_run(folder, EXPORTER, "profile", every, *words, *keys, "--json").stdout)
    medians = {s["name"]: s["median_ms"] for s in said["subjects"] if s["median_ms"] and s["name"] != "eager"}
    fastest = min(medians, key=lambda name: medians[name])
    picked = told["auto"]["chosen"]
    name = target if picked == "fp32" else f"{target}/{picked}"
    # Two that differ by less than two runs of the same thing do are equally fast.
    equal = medians[name] / medians[fastest] if name in medians else float("inf")
    floor = max(said["noise_floor"] or 1.0, 1.0)
    note = f"it picked {picked}; medians {', '.join(f'{n} {ms:.3g} ms' for n, ms in medians.items())}"
    what = f"`auto` on `{model}`, {target}, against the fastest of {', '.join(passed)}"
    return Figure(what, "the same, or no slower than noise", equal, equal <= floor, "x", note=note)


def _export(
    folder: Path, target: str, model: str, *words: str, bundle: str = "", allow: Sequence[int] = (0,)
) -> dict[str, Any]:
    place = bundle or f"{target}-{model}"
    done = _run(folder, EXPORTER, target, model, *words, "-o", place, "--replace", "--json", allow=allow)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def _run(folder: Path, *words: str, allow: Sequence[int] = (0,)) -> subprocess.CompletedProcess[str]:
    where = ROOT if words[0] == sys.executable else folder
    done = subprocess.run(words, cwd=where, capture_output=True, text=True, check=False)
    assert done.returncode in allow, (
        f"{' '.join(words)} ended with {done.returncode}: {(done.stderr + done.stdout)[-2000:]}"
    )
    return done


def _compiled(said: Mapping[str, Any]) -> Mapping[str, Any]:
    (hop,) = [hop for hop in said["verify"]["hops"] if hop["hop"] == "compiled"]
    return hop  # type: ignore[no-any-return]


def _ratio(said: Mapping[str, Any], of: str, to: str) -> Mapping[str, Any]:
    (ratio,) = [r for r in said["profile"]["ratios"] if (r["of"], r["to"]) == (of, to)]
    return ratio  # type: ignore[no-any-return]


def _shares(hop: Mapping[str, Any]) -> str:
    return ", ".join(f"{part:.0%} {kind}" for kind, part in hop["facts"]["work"].items())
