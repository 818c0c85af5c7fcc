"""What TensorRT and which GPUs are here, asked in a process of its own: importing a broken one may end the process.

Also a program: it prints what it found as JSON, and is given the way to ``cuda.py`` beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .cuda import Device

SECONDS = 120
# The folder where the user stands must not shadow what is imported: it is '' on sys.path under -c.
CODE = """
import dataclasses, importlib.util, json, sys
sys.path[:] = [place for place in sys.path if place]
spec = importlib.util.spec_from_file_location("exporter_cuda", sys.argv[1])
cuda = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = cuda
spec.loader.exec_module(cuda)
import tensorrt
found = [dataclasses.asdict(device) for device in cuda.devices()]
print(json.dumps({"version": tensorrt.__version__, "devices": found}))
"""


@dataclass(frozen=True)
class Found:
    """What is here.

    Attributes:
        version: TensorRT's, or None where it does not load.
        devices: the GPUs.
        reason: why it does not load.
    """

    version: str | None
    devices: tuple[Device, ...] = ()
    reason: str = ""


@cache
def probe() -> Found:
    """Asks once in the life of this process."""
    words = [sys.executable, "-c", CODE, str(Path(__file__).with_name("cuda.py"))]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Found(None, reason=f"tensorrt does not load: {error}")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        return Found(None, reason=f"tensorrt does not load: {last}")
    said = json.loads(done.stdout.splitlines()[-1])
    return Found(said["version"], tuple(Device(**device) for device in said["devices"]))
