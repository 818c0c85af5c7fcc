"""What the stages up to the portable graph made, kept outside every bundle for the next one, or the next try.

A stage is a function of its request and of what lies around it: code, tools, machine. The digest of all that is the
key (:mod:`~exporter.cache.key`). What a stage said and wrote is an entry under that key, written whole and checked
whenever it is read (:mod:`~exporter.cache.entry`), in a folder of this user's (:mod:`~exporter.cache.store`).
:class:`Reusing` runs stages by way of it. No verdict is kept: verdicts are reached anew, from measurements that are.
"""

from __future__ import annotations

from exporter.cache.reuse import Call, Reusing
from exporter.cache.store import Cache, of_this_user

__all__ = ["Cache", "Call", "Reusing", "of_this_user"]
