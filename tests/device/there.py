"""The environment of a device, ``.venv-device`` as ``make setup`` makes it; where it is absent it is made here."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

from tests.cli_fakes.tool import ROOT, Ended, environment

PYTHON = ROOT / ".venv-device" / "bin" / "python"


@cache
def absent() -> str:
    """An empty text, or why there is no such environment."""
    if not PYTHON.exists():
        words = ["make", ".venv-device/ready"]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=540, check=False)
        if done.returncode != 0:
            return f"pip cannot make .venv-device here: {(done.stderr or done.stdout)[-300:]}"
    return ""


def there(*arguments: object, cwd: Path) -> Ended:
    """Runs the command on the device."""
    words = [str(PYTHON.with_name("exporter")), *map(str, arguments)]
    env = environment()
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)
