"""Which text and which names a manifest may hold: none that drives a terminal or hides what it says."""

from __future__ import annotations

from exporter.manifest.limits import MAX_NAME, MAX_TEXT
from exporter.manifest.refusal import shown, wrong


def control(letter: str) -> bool:
    """Whether a letter could drive a terminal or is no text: control codes, half surrogates, direction overrides."""
    code = ord(letter)
    low = (code < 0x20 and letter not in "\n\t") or 0x7F <= code < 0xA0
    return low or 0xD800 <= code < 0xE000 or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069


def printable(text: str) -> str:
    """Text that drives no terminal and hides nothing: what cannot be printed is written as its code."""
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)


def scrubbed(text: str) -> str:
    """Free text as the decoder takes it: a tool's message may hold terminal escapes, and be long."""
    clean = "".join("\N{REPLACEMENT CHARACTER}" if control(letter) else letter for letter in text)
    return clean if len(clean) <= MAX_TEXT else clean[: MAX_TEXT - 3] + "..."


def checked_text(text: str, place: str) -> str:
    if len(text) > MAX_TEXT:
        wrong(place, f"its text has {len(text)} letters; at most {MAX_TEXT} are read")
    bad = next((letter for letter in text if control(letter)), None)
    if bad is not None:
        wrong(place, f"its text holds the control character U+{ord(bad):04X}")
    return text


def checked_name(text: str, place: str) -> str:
    if not text or len(text) > MAX_NAME or text != text.strip():
        wrong(place, f"{shown(text)} is no name: 1 to {MAX_NAME} letters, no space at its ends")
    if any(letter in "\n\t" or control(letter) for letter in text):
        wrong(place, f"the name {shown(text)} holds a control character")
    return text
