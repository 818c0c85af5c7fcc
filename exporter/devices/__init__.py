"""Commands on another device: what they need is copied there, they run there, and what they found comes back."""

from __future__ import annotations
