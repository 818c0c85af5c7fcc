"""HTML and SVG as values: whatever is not markup already is text, and is escaped."""

from __future__ import annotations

import re
from html import escape
from typing import TypeAlias

# Control codes, halves of surrogate pairs, and letters that turn the direction of all that follows.
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
VOID = frozenset({"br", "circle", "img", "line", "link", "meta", "path", "polyline", "rect"})


class Markup(str):
    """Text that is HTML already. Only :func:`tag`, :func:`joined` and :func:`raw` make it."""

    __slots__ = ()


Content: TypeAlias = "str | int | float | None"


def text(value: Content) -> Markup:
    """Anything as markup: markup stays what it is, text is escaped, nothing is nothing."""
    if isinstance(value, Markup):
        return value
    return Markup(escape(UNSEEN.sub("\ufffd", "" if value is None else str(value))))


def raw(value: str) -> Markup:
    """Text of our own files (a style sheet) as it stands; never what a bundle says."""
    return Markup(value)


def joined(*parts: Content) -> Markup:
    """Parts one after another."""
    return Markup("".join(map(text, parts)))


def tag(name: str, /, *content: Content, **attributes: Content) -> Markup:
    """One element.

    Args:
        name: of the element.
        content: what it holds; text is escaped.
        attributes: ``class_`` is ``class``, ``aria_label`` is ``aria-label``; one that is None is left out.
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID and not content:
        return Markup(f"<{name}{said}>" if name in ("br", "img", "link", "meta") else f"<{name}{said}/>")
    return Markup(f"<{name}{said}>{joined(*content)}</{name}>")
