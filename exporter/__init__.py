"""Ship a PyTorch model: trace it, simplify the graph, compile it for a target, verify, profile, bundle.

``export`` makes a bundle; ``open`` gives one to verify, profile and run; ``compare`` says what changed between two.
Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["ExporterError", "ModelDef", "OpenBundle", "__version__", "compare", "export", "open"]

if TYPE_CHECKING:
    from exporter.api import OpenBundle, compare, export, open  # noqa: A004  # the name users say
    from exporter.errors import ExporterError
    from exporter.spec import ModelDef

_HOMES = {
    "compare": "exporter.api",
    "export": "exporter.api",
    "open": "exporter.api",
    "OpenBundle": "exporter.api",
    "ExporterError": "exporter.errors",
    "ModelDef": "exporter.spec",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'exporter' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
