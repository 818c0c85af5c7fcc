"""For people: which device it was, and how it fared meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporter.cli.console import console, escape

ABSENT = "absent"
Event = Mapping[str, Any]


def described(device: Event) -> None:
    """What a device is, and its clocks and temperatures before and after; what it does not tell is absent."""
    out = console()
    names = ("model", "soc", "cpu", "cores", "memory_mb", "os", "kernel", "python")
    if device.get("emulated"):
        out.print(f"[bold yellow]emulated[/]  {escape(str(device['emulated']))}: answers count, no timing does")
    if device.get("imported"):
        out.print(f"imported  {escape(', '.join(device['imported']))}: not measured by exporter")
    if "model" in device:
        told = [f"{_name(name)} {_text(device[name])}" for name in names if name in device]
        out.print(f"device  {escape(', '.join(told))}")
    for when in ("before", "after"):
        if device.get(when):
            out.print(f"{when:<7} {escape(_moment(device[when]))}")


def _name(name: str) -> str:
    return {"memory_mb": "memory in MB", "soc": "SoC"}.get(name, name)


def _text(value: object) -> str:
    return ABSENT if value is None or value == {} else str(value)


def _moment(moment: Event) -> str:
    zones = moment.get("zones") or {}
    degrees = ", ".join(f"{name} {value:g}" for name, value in zones.items()) or _text(moment.get("celsius"))
    clock = _text(moment.get("mhz")) + (f" of {moment['most_mhz']}" if moment.get("most_mhz") else "")
    throttled = moment.get("throttled")
    held = ", ".join(f"{name} {value}" for name, value in throttled.items()) if throttled else ABSENT
    return (
        f"governor {_text(moment.get('governor'))}, clock in MHz {clock}, degrees Celsius {degrees}, throttling {held}"
    )
