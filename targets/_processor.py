"""What the processor of this machine does to products of eight bits."""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path

SEVEN_BITS = "weights have seven bits: this processor, x86 without VNNI, cuts off sums of products of eight"


@cache
def saturates(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether sums of products of eight bits are cut off here: by ``vpmaddubsw``, where there is no ``vpdpbusd``.

    ONNX Runtime and OpenVINO use it alike, and ask their users for weights of seven bits on such a processor.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i686"):
        return False
    try:
        return re.search(r"^flags\s*:.*vnni", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE) is None
    except OSError:
        return False
