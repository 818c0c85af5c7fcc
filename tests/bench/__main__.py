"""Measures every figure, prints the table, writes docs/performance.md; ends with 1 where a bar is missed."""

from __future__ import annotations

import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from exporter.latency import environment
from tests.bench import iterations, preparing, quality, restoring, startup, stream, tracing, training, verifying
from tests.bench.figure import CHECKPOINT, ROOT, Figure

PAGE = ROOT / "docs" / "performance.md"
PARTS = (startup, quality, stream, verifying, tracing, preparing, restoring, iterations, training)
PACKAGES = ("torch", "onnx", "onnxruntime", "openvino", "onnxsim", "onnxscript", "polygraphy", "numpy")


def main() -> int:
    """Runs the parts in order; some leave bundles for the next."""
    if not CHECKPOINT.is_file():
        print("SKIPPED: the published checkpoint and recording are not at hand; set EXPORTER_DATA", file=sys.stderr)
        return 3
    found: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="exporter-bench-") as folder:
        for part in PARTS:
            started = time.monotonic()
            figures = part.figures(Path(folder))
            found += figures
            for figure in figures:
                print(figure.row(), flush=True)
            print(
                f"-- {part.__name__.rpartition('.')[2]}: {time.monotonic() - started:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    PAGE.write_text(_page(found), encoding="utf-8")
    return 0 if all(figure.met for figure in found) else 1


def _page(found: list[Figure]) -> str:
    facts = environment.read(())
    warned = environment.warnings(facts, environment.usable_cores())
    lines = [
        "# Performance",
        "",
        "Measured by `make bench`, which writes this page; ratios are of subjects interleaved in one run, with the",
        "median and its 95 % interval. Absolute times belong to the machine that ran it.",
        "",
        "| what | bar | measured | met | note |",
        "|---|---|---|---|---|",
        *(figure.row() for figure in found),
        "",
        f"Machine: {facts.cpu or platform.processor()}, {environment.usable_cores()} cores. "
        f"Python {platform.python_version()}; " + ", ".join(f"{name} {version(name)}" for name in PACKAGES) + ".",
        "",
        *(f"- {w.as_json().get('what')}" for w in warned),
    ]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
