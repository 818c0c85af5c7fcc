"""What Selective-IGEV's definitions and modules share in numbers. No torch."""

from __future__ import annotations

from ..stereo.declare import RADIUS

# Groups of channels in the volume.
GROUPS = 8
# The lookup: levels, and its channels: per level and position, the groups of the geometry and one correlation.
LEVELS = 2
LOOKED_UP = LEVELS * (2 * RADIUS + 1) * (GROUPS + 1)
