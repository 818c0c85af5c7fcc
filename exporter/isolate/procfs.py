"""What ``/proc`` tells of a process and of its group."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path


def _stat_fields(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` after the command's name (which may itself hold spaces and brackets)."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def state(pid: int) -> str:
    """``R``, ``S``, ``T`` (stopped), ``Z`` (ended), ...; ``X`` when there is no such process to look at."""
    try:
        return _stat_fields(pid)[0]
    except (OSError, IndexError):
        return "X"


def group(leader: int) -> set[int]:
    """The processes of a group."""
    members = {leader}
    with suppress(OSError):
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError, IndexError, ValueError):
                    if int(_stat_fields(int(entry.name))[2]) == leader:
                        members.add(int(entry.name))
    return members


def resident(pid: int) -> int:
    """Resident memory of a process, 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0


def high_water(pid: int) -> int:
    """The most resident memory a process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
