"""The options of one target alone: ``--option NAME=VALUE``, read and refused by what the target declares of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from exporter.errors import Refused, nearest
from exporter.target import Setting, Target

Value = bool | int | str

TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def target_options(target: Target, pairs: Sequence[str], when: str = "") -> dict[str, Value]:
    """``NAME=VALUE`` texts as values of the options that a target has; what is not given is not among them.

    Args:
        target: whose options they are.
        pairs: the texts.
        when: ``run`` where only those are taken that may be chosen at every run.

    Raises:
        Refused: ``bad-option`` for a name, a value or a moment that does not fit.
    """
    given: dict[str, Value] = {}
    for pair in pairs:
        name, found, text = pair.partition("=")
        name = name.replace("_", "-")
        if not found:
            raise _refusal(target, pair, "an option is NAME=VALUE")
        setting = target.settings.get(name)
        if setting is None:
            raise _refusal(target, pair, f"there is no such option{nearest(name, list(target.settings))}")
        if when and setting.when != when:
            raise _refusal(target, pair, "compiling reads it: give it to the export or to exporter compile")
        given[name] = _read(target, pair, text, setting)
    return given


def completed(target: Target, given: Mapping[str, Value]) -> dict[str, Value]:
    """Every option of a target, with its default where it is not given."""
    return {name: given.get(name, setting.default) for name, setting in target.settings.items()}


def _read(target: Target, pair: str, text: str, setting: Setting) -> Value:
    """The text as the type that the option's default has."""
    value: Value = text
    if isinstance(setting.default, bool):
        if text.lower() not in TRUTHS:
            raise _refusal(target, pair, f"it is {' or '.join(TRUTHS)}")
        return TRUTHS[text.lower()]
    if isinstance(setting.default, int):
        match = re.fullmatch(r"(-?\d{1,18})(?:([KMGT])(?:i?B)?)?", text)
        if match is None:
            raise _refusal(target, pair, "it is a whole number, such as 3 or 512M")
        value = int(match[1]) * UNITS[match[2] or ""]
        if not setting.low <= value <= setting.high:
            raise _refusal(target, pair, f"it lies within {setting.low}..{setting.high}")
    if setting.choices and value not in setting.choices:
        raise _refusal(target, pair, f"it is one of {', '.join(map(str, setting.choices))}")
    return value


def _refusal(target: Target, pair: str, rule: str) -> Refused:
    known = "; ".join(f"{name} ({setting.meaning})" for name, setting in target.settings.items())
    return Refused(
        "bad-option",
        f"--option {pair} does not fit {target.name}: {rule}",
        where=f"target {target.name}",
        why=f"options of {target.name}: {known or 'none'}",
        next="exporter targets",
    )
