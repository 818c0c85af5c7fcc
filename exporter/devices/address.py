"""Where a device is: ``ssh://user@host:port?python=/path``, or the name of a kind alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from exporter.errors import Refused, nearest

FORMS = {"ssh": "ssh://user@host[:port]"}  # a kind that has one place is named alone
EXAMPLE = "--on ssh://user@host:22"
# Names of users and hosts as ssh takes them from nobody's shell: no name begins as an option does.
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]*")
HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|[0-9A-Fa-f:]+(%[A-Za-z0-9._-]+)?")


@dataclass(frozen=True)
class Address:
    """Where a device is.

    Attributes:
        kind: which file of :mod:`exporter.devices.kinds` speaks with it.
        host: its name, as ssh knows it; nothing for a kind that has one place.
        user: who logs in; nobody named leaves it to ssh's own configuration.
        port: likewise.
        python: the interpreter to use there; the first that will do where none is named.
    """

    kind: str
    host: str = ""
    user: str = ""
    port: int | None = None
    python: str = ""

    @property
    def label(self) -> str:
        """What its lines are marked with."""
        who = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port is not None else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{who}{host}{port}" if host else self.kind

    def __str__(self) -> str:
        return f"{self.kind}://{self.label}" if self.host else self.kind


def parsed(text: str, kinds: Sequence[str]) -> Address:
    """The address that a text says.

    Args:
        text: what was given to ``--on``.
        kinds: the kinds there are.

    Raises:
        Refused: ``bad-device`` for a text that is none.
    """
    if text in kinds:
        return Address(text)
    kind, remote, _ = text.partition("://")
    if not text.isprintable():
        raise _bad(text, "it holds what cannot be printed")
    if not remote or kind not in kinds:
        raise _bad(
            text, f"it is none of {', '.join(FORMS.get(name, name) for name in kinds)}{nearest(kind, list(kinds))}"
        )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise _bad(text, str(error)) from None
    host, user = parts.hostname or "", unquote(parts.username or "")
    # urlsplit makes names small; ssh's own configuration may tell them apart.
    start = parts.netloc.lower().rfind(host.lower())
    host = parts.netloc[start : start + len(host)]
    if parts.password is not None:
        raise _bad(text, "it holds a password, which others could read: use a key (ssh-copy-id)")
    if not HOST.fullmatch(host) or ("@" in parts.netloc and not USER.fullmatch(user)) or port == 0:
        raise _bad(text, "it names no host that ssh could be given")
    if parts.path not in ("", "/") or parts.fragment:
        raise _bad(text, f"{parts.path or parts.fragment!a} is no part of a device: bundles are copied from here")
    return Address(kind, host, user, port, _python(text, parts.query))


def _python(text: str, query: str) -> str:
    name, _, value = query.partition("=")
    if query and name != "python":
        raise _bad(text, f"{name!a} is nothing that a device takes; python=/PATH is")
    python = unquote(value)
    if query and (not python.startswith(("/", "~/")) or not python.isprintable()):
        raise _bad(text, f"python={python!a} is no whole path, such as python=/usr/bin/python3.11")
    return python


def _bad(text: str, why: str) -> Refused:
    text = re.sub(r"(://[^/@:]*:)[^/]*@", r"\1***@", text)
    return Refused(
        "bad-device", f"{text!a} is no device: {why}", where=f"--on {text!a}",
        why="a device is named by one address, and nothing of it is ever read by a shell", next=EXAMPLE,
    )  # fmt: skip
