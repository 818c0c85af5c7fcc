"""What a child may use."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path


def default_memory() -> int | None:
    """Four fifths of what this machine, or the control group we are in, has; None where neither can be read."""
    sizes = []
    with suppress(OSError, ValueError):
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):  # "max" means no limit and is no number
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(sizes) * 4 // 5 if sizes else None


@dataclass(frozen=True)
class Limits:
    """What a child may use.

    Args:
        seconds: wall time, without the time it was paused.
        memory_bytes: resident memory of its whole process group (shared pages count once per process); None is no
            limit.
    """

    seconds: float = 600.0
    memory_bytes: int | None = field(default_factory=default_memory)
