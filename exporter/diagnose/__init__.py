"""Diagnose: the first node of the first hop whose answer is wrong, told in the user's own words.

``parent`` finds the hop, and ``asking`` asks the children of ``child``: they look in graphs (``graphs``, against right
values by name) or in what a target compiles (``artifact``, by asking it for inner values). Both know what is right from
``oracle``, a graph run node by node in float64; ``search`` is the halving itself, pure. ``reproduction`` writes what
fails by itself as a bundle.
"""

from exporter.diagnose.parent import diagnose
from exporter.diagnose.result import Birth, Diagnosis, Outcome

__all__ = ["Birth", "Diagnosis", "Outcome", "diagnose"]
