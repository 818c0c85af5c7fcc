"""One file per kind of device, named as the scheme of its address; existing here is registering."""

from __future__ import annotations
