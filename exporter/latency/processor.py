"""What a processor is called: an x86 says so itself, an ARM says what its cores are, and the board whose they are."""

from __future__ import annotations

import re
from pathlib import Path

# Names of the cores that boards and phones have, by implementer and part as the kernel tells them (util-linux, lscpu).
CORES = {
    0x41: {0xD03: "Cortex-A53", 0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72",
           0xD09: "Cortex-A73", 0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76", 0xD0C: "Neoverse-N1", 0xD0D: "Cortex-A77",
           0xD40: "Neoverse-V1", 0xD41: "Cortex-A78", 0xD42: "Cortex-A78AE", 0xD44: "Cortex-X1", 0xD46: "Cortex-A510",
           0xD47: "Cortex-A710", 0xD48: "Cortex-X2", 0xD49: "Neoverse-N2", 0xD4D: "Cortex-A715", 0xD4E: "Cortex-X3",
           0xD80: "Cortex-A520", 0xD81: "Cortex-A720"},
    0x4E: {0x004: "Carmel"},
}  # fmt: skip


def name(root: Path) -> str | None:
    """What the kernel calls it, or the kinds of its cores.

    Args:
        root: where ``proc`` lies.
    """
    text = _text(root / "proc/cpuinfo")
    said = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return said.group(1).strip() if said else _kinds(text)


def machine(root: Path) -> str | None:
    """The same, with the board where the cores alone have a name: there are many boards with the same ones."""
    found, board = name(root), _text(root / "proc/device-tree/model").strip("\0 \n")
    named = re.search(r"^model name\s*:", _text(root / "proc/cpuinfo"), re.MULTILINE)
    return found if named or not board else " of ".join(filter(None, (found, board)))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _kinds(text: str) -> str | None:
    """The kinds of cores of an ARM processor, which has no name of its own."""
    makers = re.findall(r"^CPU implementer\s*:\s*0x([0-9a-f]+)", text, re.MULTILINE)
    parts = re.findall(r"^CPU part\s*:\s*0x([0-9a-f]+)", text, re.MULTILINE)
    kinds = list(dict.fromkeys(zip((int(m, 16) for m in makers), (int(p, 16) for p in parts), strict=False)))
    names = [CORES.get(maker, {}).get(part) or f"implementer {maker:#x} part {part:#x}" for maker, part in kinds]
    return " + ".join(names) or None
