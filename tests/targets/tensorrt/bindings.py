"""TensorRT's real Python bindings on a machine without TensorRT, and a double made of what they say of themselves.

``make .trt-bindings/ready`` unpacks the bindings of three versions; their libraries are stubs that are compiled here.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
PLACE = ROOT / ".trt-bindings"
# The oldest that a JetPack still brings, the last of 10.x, the newest.
VERSIONS = ("10.3.0", "10.16.1.11", "11.4.0.106")
NEWEST = VERSIONS[-1]
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")


@cache
def absent() -> str:
    """An empty text, or why the bindings cannot be looked at here."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return f"the bindings are looked at on Linux x86_64, this is {platform.system()} {platform.machine()}"
    if shutil.which("cc") is None:
        return "there is no C compiler for the stub libraries"
    if not (PLACE / "ready").exists():
        words = ["make", ".trt-bindings/ready"]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            return f"pip cannot get TensorRT's bindings here: {(done.stderr or done.stdout)[-300:]}"
    return ""


def compiled(source: Path, library: Path) -> None:
    """Compiles a stub library under the name that its users look for."""
    words = ["cc", "-shared", "-fPIC", "-w", "-O1", f"-Wl,-soname,{library.name}", "-o", str(library), str(source)]
    subprocess.run(words, check=True, capture_output=True, text=True)


def stubbed(version: str, folder: Path) -> dict[str, str]:
    """An environment in which ``tensorrt_bindings`` of that version imports."""
    major = version.partition(".")[0]
    for name in LIBRARIES:
        compiled(HERE / "stubs.c", folder / f"lib{name}.so.{major}")
    return {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(PLACE / version)}


def in_real(version: str, folder: Path, code: str) -> str:
    """What a script prints where the real bindings of a version can be imported, as ``tensorrt`` too."""
    alias = folder / "alias"
    alias.mkdir(exist_ok=True)
    (alias / "tensorrt.py").write_text("import sys, tensorrt_bindings\nsys.modules['tensorrt'] = tensorrt_bindings\n")
    env = stubbed(version, folder)
    env["PYTHONPATH"] = os.pathsep.join([str(alias), env["PYTHONPATH"], str(ROOT)])
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=os.environ | env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def surface(version: str, folder: Path) -> dict[str, Any]:
    """Every class, enum and signature of a version."""
    value: dict[str, Any] = json.loads(in_real(version, folder, (HERE / "surface.py").read_text()))
    return value


def doubled(version: str, folder: Path) -> dict[str, str]:
    """An environment in which ``tensorrt`` is the double of that version, with one GPU."""
    libraries = folder / "cuda"
    libraries.mkdir(parents=True, exist_ok=True)
    compiled(HERE / "cuda_stub.c", libraries / "libcudart.so")
    compiled(HERE / "cuda_stub.c", libraries / "libcuda.so.1")
    described = folder / "surface.json"
    described.write_text(json.dumps(surface(version, libraries)))
    return {
        "PYTHONPATH": str(HERE / "double"),
        "LD_LIBRARY_PATH": str(libraries),
        "TENSORRT_SURFACE": str(described),
        "DOUBLE_PYTHON": sys.executable,
        "DOUBLE_HELPER_PATH": str(ROOT),
        "DOUBLE_LOG": str(folder / "calls.jsonl"),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
