"""Exports models that nobody here wrote for the fast targets, and writes docs/zoo.md: a verdict each, or why not.

``python -m tests.zoo [NAME ...]``: all, or only these. What was found is kept in ``build/zoo`` and gone on from; a
change of ``exporter/`` or ``targets/`` begins anew.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from exporter.graph import sha256
from tests.bench.figure import EXPORTER, ROOT

PAGE, KEPT, CLASSICS = ROOT / "docs" / "zoo.md", ROOT / "build" / "zoo", "tests/zoo/classics.py"
TARGETS = ("openvino", "mobile")
SECONDS = 1500
NAMES = (
    "lstm_tagger", "translator", "transformer_encoder", "unet", "autoencoder", "temporal_net", "warp", "vocoder",
    "siamese", "detector", "chooser", "language_model",
)  # fmt: skip
# Architectures of timm by family, the smallest of each.
TIMM: Mapping[str, Sequence[str]] = {
    "convolutions": (
        "resnet18", "resnext26ts", "seresnet33ts", "skresnet18", "res2net50_14w_8s", "regnetx_002", "regnety_002",
        "densenet121", "vgg11_bn", "dla34", "hrnet_w18_small", "cspresnet50", "ese_vovnet19b_dw", "inception_v3",
        "nf_regnet_b0", "gernet_s", "repvgg_a0",
    ),
    "small convolutions": (
        "mobilenetv2_050", "mobilenetv3_small_050", "mnasnet_small", "efficientnet_b0", "tf_efficientnetv2_b0",
        "ghostnet_050", "lcnet_050", "rexnet_100", "fbnetc_100", "convnext_atto", "convnextv2_atto", "repvit_m0_9",
    ),
    "attention": (
        "vit_tiny_patch16_224", "deit_tiny_patch16_224", "cait_xxs24_224", "xcit_nano_12_p16_224", "pvt_v2_b0",
        "convit_tiny", "crossvit_tiny_240", "tnt_s_legacy_patch16_224", "levit_128s", "twins_svt_small", "volo_d1_224",
    ),
    "windows": ("swin_tiny_patch4_window7_224", "swinv2_cr_tiny_ns_224", "davit_tiny", "focalnet_tiny_srf"),
    "no attention": (
        "mixer_s32_224", "resmlp_12_224", "gmlp_s16_224", "poolformer_s12", "sequencer2d_s", "mambaout_femto",
    ),
    "hybrids": (
        "coat_lite_tiny", "mobilevit_xxs", "mobilevitv2_050", "edgenext_xx_small", "coatnet_pico_rw_224",
        "maxvit_rmlp_pico_rw_256", "efficientformer_l1", "visformer_tiny", "fastvit_t8", "tiny_vit_5m_224",
        "bat_resnext26ts", "halonet26t", "lambda_resnet26t", "eca_botnext26ts_256",
    ),
}  # fmt: skip

INTRODUCTION = """\
# A zoo

Models that nobody here wrote: architectures of timm, the smallest of their kinds, and twelve classics of `torch.nn`
alone (`tests/zoo/classics.py`). Each was exported by `exporter TARGET MODEL --no-profile`; weights are seeded, or as
the constructor gives them. Written by `make zoo` from what the exports said.

The number is the largest error over eager PyTorch's own. The ladder allows 4 on mobile and 16 on OpenVINO
([parity.md](parity.md)).
"""


def main(names: Sequence[str]) -> int:
    KEPT.mkdir(parents=True, exist_ok=True)
    rows, found = _models(), []
    for index, (family, name, model) in enumerate(rows):
        if names and name not in names:
            continue
        kept = KEPT / f"{name}-{_digest(name)}.json"
        if not kept.is_file():
            print(f"{index + 1}/{len(rows)} {name}", flush=True)
            kept.write_text(json.dumps(_exported(model), indent=1))
        found.append((family, name, json.loads(kept.read_text())))
    page = _page(found)
    if names:
        print(page)
    else:
        PAGE.write_text(page, encoding="utf-8")
    return 0


def _models() -> list[tuple[str, str, str]]:
    classics = [("classics", name, f"{CLASSICS}:{name}") for name in NAMES]
    return classics + [(family, name, f"timm:{name}") for family, names in TIMM.items() for name in names]


def _digest(name: str) -> str:
    """Of everything of ours that a verdict depends on."""
    digest, folders = hashlib.sha256(name.encode()), ("exporter", "targets")
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        digest.update(sha256(path).encode())
    digest.update(sha256(ROOT / CLASSICS).encode())
    return digest.hexdigest()[:12]


def _exported(model: str) -> dict[str, Any]:
    """What both targets said of it, and how long that took."""
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        return {target: _said(target, model, Path(folder) / "it.bundle") for target in TARGETS}


def _said(target: str, model: str, bundle: Path) -> dict[str, Any]:
    words = (EXPORTER, target, model, "-o", str(bundle), "--no-profile", "--json", "--timeout", str(SECONDS))
    began = time.monotonic()
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = round(time.monotonic() - began, 1)
    trace = "Traceback" in done.stderr + done.stdout
    try:
        said = json.loads(done.stdout)
    except ValueError:
        return {"verdict": "NO ANSWER", "why": (done.stderr or done.stdout)[-300:], "seconds": seconds, "trace": trace}
    if said["schema"].startswith("exporter.error"):
        why = {part: said[part] for part in ("code", "what", "where")}
        return {"verdict": "REFUSED", **why, "why": said["what"], "seconds": seconds, "trace": trace}
    hops = said["verify"]["hops"]
    failed = next((hop for hop in hops if hop["verdict"] not in ("PASS", "SKIPPED")), None)
    worst = max((hop["worst"]["amplification"] or 0.0 for hop in hops if hop.get("worst")), default=None)
    why = f"{failed['hop']}: {failed['reason']}{_born(bundle, target, model)}" if failed else ""
    return {"verdict": said["verdict"], "why": why, "worst": worst, "seconds": seconds, "trace": trace}


def _born(bundle: Path, target: str, model: str) -> str:
    """Where an error is born, as ``exporter diagnose`` says."""
    words = (EXPORTER, "diagnose", str(bundle), "--target", target, "--model", model, "--json")
    done = subprocess.run((*words, "-o", str(bundle.with_suffix(".failing"))), cwd=ROOT, capture_output=True, text=True,
                          check=False)  # fmt: skip
    try:
        said = json.loads(done.stdout)
        birth, notes = said["births"][0], "; ".join(said["notes"][:1])
    except (ValueError, KeyError, IndexError):
        return ""
    return f"; born at {birth['node']} ({birth['operator']}), {birth['module']}" + (f"; {notes}" if notes else "")


def _page(found: Sequence[tuple[str, str, Mapping[str, Any]]]) -> str:
    lines = [INTRODUCTION, _summary(found), "", f"| model | family | {' | '.join(TARGETS)} |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {family} | {' | '.join(_cell(said[t]) for t in TARGETS)} |" for family, name, said in found
    ]
    others = [(name, target, said[target]) for _, name, said in found for target in TARGETS
              if said[target]["verdict"] != "PASS"]  # fmt: skip
    if others:
        lines += ["", "## What did not pass", ""]
        lines += [f"- `{name}` on {target}: {it['verdict']}: {_flat(it['why'])}" for name, target, it in others]
    tools = ", ".join(f"{package} {version(package)}" for package in ("torch", "timm", "openvino", "onnxruntime"))
    return "\n".join([*lines, "", f"With {tools}.", ""])


def _summary(found: Sequence[tuple[str, str, Mapping[str, Any]]]) -> str:
    said = []
    for target in TARGETS:
        counts = Counter(it[target]["verdict"] for _, _, it in found)
        others = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if verdict != "PASS")
        share = counts["PASS"] / max(len(found), 1)
        said.append(
            f"**{target}**: {counts['PASS']} of {len(found)} PASS ({share:.0%})" + (f"; {others}" if others else "")
        )
    traces = sum(it[target]["trace"] for _, _, it in found for target in TARGETS)
    return "; ".join(said) + f". Stack traces shown: {traces}."


def _cell(said: Mapping[str, Any]) -> str:
    return f"{said['verdict']} {said['worst']:.2f}" if said.get("worst") is not None else str(said["verdict"])


def _flat(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
