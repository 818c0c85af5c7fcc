"""Source lines: which line of a user's code a traced node comes from, in words that are the same on every machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

# PyTorch tells its own files by bare names as well: a user's has a whole one.
FRAME = re.compile(r'File "(?P<file>/[^"]+)", line (?P<line>\d+)')


def line_of(stack_trace: str, outside: Sequence[str]) -> str:
    """``package/module.py:12`` of the innermost frame of a user's own; nothing where there is none.

    Args:
        stack_trace: frames as Python prints them, the innermost last.
        outside: folders whose frames are no user's: libraries that the code only calls.
    """
    frames = [found for found in FRAME.finditer(stack_trace) if not found["file"].startswith((*outside, "<"))]
    return f"{portable(Path(frames[-1]['file']))}:{frames[-1]['line']}" if frames else ""


def portable(file: Path) -> str:
    """A file's name from the root of its package on; where that lies is the machine's own."""
    root = file.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    return file.relative_to(root).as_posix()
