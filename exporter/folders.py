"""Where this user's things lie outside every bundle, as the XDG base directory rules have it."""

from __future__ import annotations

import os
from pathlib import Path


def state() -> Path:
    """What has to stay: losing it costs trust."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "exporter"


def cache() -> Path:
    """What may go: losing it costs time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "exporter"
