"""Where this user's things lie outside every bundle, as the XDG base directory rules have it."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def state() -> Path:
    """What has to stay: losing it costs trust."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "exporter"


def cache() -> Path:
    """What may go: losing it costs time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "exporter"


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file in one step: whoever reads it sees all of it or what was there before.

    Raises:
        OSError: it cannot be written; nothing of the attempt is left.
    """
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, delete=False) as staging:
        staging.write(content)
    try:
        Path(staging.name).replace(path)
    except OSError:
        with suppress(OSError):
            Path(staging.name).unlink()
        raise
