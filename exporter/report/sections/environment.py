"""Environment: what it was made with, and the machines it was timed on."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.report import figures
from exporter.report.layout import Column, Section, bundle_word, details, missing, pairs, paragraph, table
from exporter.report.markup import Content, Markup, joined
from exporter.report.reading import Fields
from exporter.report.values import Page, Profiled

FACTS = {
    "model": "device", "soc": "chip", "os": "system",
    "cpu": "processor", "cores": "cores", "usable_cores": "usable cores", "governor": "governor",
    "turbo": "boost clocks",
    "quota_cores": "CPU quota, cores", "load": "load before", "memory_mb": "memory, MB", "free_mb": "free, MB",
    "on_battery": "on battery", "celsius": "hottest sensor, °C", "kernel": "kernel", "python": "Python",
}  # fmt: skip
# Of some machines alone; nobody misses them of another.
ODD = {"emulated": "emulated: answers count, no timing does", "imported": "read from"}
STAGES = (Column("stage"), Column("seconds", "number"), Column("peak memory", "number"), Column("from the cache"))


def environment(page: Page) -> Section:
    """The section."""
    manifest = page.manifest
    made = pairs([
        ("bundle", f"{figures.counted(len(manifest.files), 'file')}, {figures.size(page.bytes)}"),
        ("made with", ", ".join(f"{tool} {version}" for tool, version in sorted(manifest.tools.items()))),
        *((key, _fingerprint(info.fingerprint)) for key, info in manifest.targets.items()),
    ])  # fmt: skip
    machines = _machines(page.profiles)
    if not page.profiles:
        machines = missing("No machine was measured.", f"exporter profile {bundle_word(manifest)} --save")
    stages = [_stages(name, found) for name, found in page.stages.items() if found]
    return Section("environment", "Environment", joined(made, machines, *stages))


def _fingerprint(fingerprint: dict[str, str]) -> str:
    """Under what an artifact is valid."""
    return "valid under " + ", ".join(f"{k} {v}" for k, v in fingerprint.items()) if fingerprint else "not compiled"


def _machines(profiles: Sequence[Profiled]) -> Markup:
    """What each profile found its machine to be; what no machine tells is named and takes no row."""
    if not profiles:
        return Markup("")
    said = [_told(profile.facts) for profile in profiles]
    names = {**ODD, **FACTS}
    told = [key for key in names if any(key in each for each in said)]
    rows: list[list[Content]] = [[names[key], *(each.get(key, figures.NONE) for each in said)] for key in told]
    packages = [profile.facts.fields("environment").worded("packages") for profile in profiles]
    rows.append(["packages", *(", ".join(f"{k} {v}" for k, v in each.items()) or figures.NONE for each in packages)])
    told_there = [profile.facts.fields("device") for profile in profiles]
    for moment in ("before", "after"):
        found = [_moment(each.fields(moment)) for each in told_there]
        rows += [[f"device, {moment}", *found]] if any(found) else []
    devices = [profile.facts.fields("environment") for profile in profiles]
    for moment in ("before", "after"):
        found = [_conditions(each.fields("devices").fields(moment)) for each in devices]
        rows += [[f"accelerator, {moment}", *found]] if any(found) else []
    columns = (Column("fact"), *(Column(f"{profile.machine} ({profile.report})") for profile in profiles))
    untold = [label for key, label in FACTS.items() if key not in told]
    note = paragraph(f"Not told: {', '.join(untold)}.", kind="note") if untold else Markup("")
    return joined(table("Machines", columns, rows, "machines"), note)


def _told(facts: Fields) -> dict[str, str]:
    """What a profile says of its machine, and of the files it was read from."""
    device = facts.fields("device")
    files = {"imported": ", ".join(device.texts("imported"))} if device.texts("imported") else {}
    return {**device.worded(), **files, **facts.fields("environment").worded()}


def _moment(value: Fields) -> str:
    """How a device fared: its governor, clocks, temperatures, and what held its clocks down."""
    zones, throttled = value.fields("zones").counted(""), value.fields("throttled").worded()
    said = {
        "governor": value.text("governor"),
        "MHz": figures.plain(value.number("mhz"), 4) if "mhz" in value else "",
        "°C": ", ".join(f"{k} {v:g}" for k, v in zones.items()) or value.worded().get("celsius", ""),
        "throttling": ", ".join(f"{k} {v}" for k, v in throttled.items()),
    }
    return "; ".join(f"{name} {text}" for name, text in said.items() if text)


def _conditions(value: Fields) -> str:
    """Clocks and temperatures of an accelerator."""
    each = [f"{target}: " + ", ".join(f"{k} {v}" for k, v in said.worded().items()) for target, said in value.named("")]
    return "; ".join(each)


def _stages(name: str, found: tuple[Fields, ...]) -> Markup:
    rows = [
        [stage.text("stage"), figures.plain(stage.number("seconds")), figures.megabytes(stage.number("peak_rss_mb")),
         stage.worded().get("cached", figures.NONE)]
        for stage in found
    ]  # fmt: skip
    total = sum(stage.number("seconds") or 0.0 for stage in found)
    return details(
        f"What {name} took: {figures.counted(len(found), 'stage')}, {total:.0f} s", table(name, STAGES, rows)
    )
