"""Where a model comes from: a definition that is registered here, or the user's own.

What is no registered name is the user's own model: a function in a file or an installed package, a name that a
definition takes after a colon, or a program that PyTorch exported. It is a stranger's code: only children run it. The
parent works with what a child *described* (:mod:`described`), children build it again (:mod:`own`).
"""

from __future__ import annotations

from exporter.models.find import Found, found, of_build
from exporter.models.place import Place, placed

__all__ = ["Found", "Place", "found", "of_build", "placed"]
