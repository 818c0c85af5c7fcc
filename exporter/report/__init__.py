"""One self-contained HTML page of all that a bundle holds: :func:`written` writes it, :func:`html` gives its text."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from exporter.bundle import Bundle
from exporter.errors import Refused
from exporter.report.collect import collected
from exporter.report.examples import Examples
from exporter.report.page import MARK, document
from exporter.whole import whole

ENDINGS = (".html", ".htm")
MOST_BYTES = 3_000_000


def html(bundle: Bundle) -> str:
    """The page of a bundle. The same bundle gives the same text.

    Where all else there is to say makes it larger than :data:`MOST_BYTES`, what there is to look at is left out.

    Raises:
        Refused: a file of the bundle that is not what its manifest says.
    """
    page = collected(bundle)
    whole = document(page)
    if len(whole.encode()) > MOST_BYTES and page.examples.found:
        return document(replace(page, examples=Examples(problem="with it the page would be larger than 3 MB")))
    return whole


def default_place(bundle: Path) -> Path:
    """Where a page is written unless told otherwise: beside the bundle."""
    whole = bundle.resolve()
    return whole.with_name(f"{whole.name.removesuffix('.bundle')}.report.html")


def written(path: Path, to: Path | None = None, overwrite: bool = False) -> Path:
    """Writes the page of a bundle, by one atomic rename.

    Args:
        path: the bundle's folder.
        to: the file; ``MODEL.report.html`` beside the bundle when None. A page that such a call wrote is replaced.
        overwrite: whether to give up a file there that is no such page.

    Returns:
        The file.

    Raises:
        Refused: no bundle, or a file of it that is not what its manifest says; ``bad-output`` where no page can be
            written, ``file-exists`` where another file would be lost.
    """
    bundle = Bundle.open(path)
    to = default_place(path) if to is None else to
    _refuse(to, overwrite)
    data = html(bundle).encode()
    try:
        with whole(to) as staging:
            staging.write_bytes(data)
    except OSError as error:
        why = "a page is written beside its final name, and put in place by one rename"
        what = f"cannot write {to}: {error.strerror}"
        raise Refused(
            "bad-output", what, where=f"-o {to}", why=why, next="-o FILE.html in a folder of yours"
        ) from error
    return to


def _refuse(to: Path, overwrite: bool) -> None:
    """Refuses a place before any work is done for it."""
    if to.suffix.lower() not in ENDINGS or not to.parent.is_dir() or to.is_dir():
        reason = "it is a folder" if to.is_dir() else f"a page is a {' or '.join(ENDINGS)} file in a folder that exists"
        raise Refused("bad-output", f"cannot write {to}", where=f"-o {to}", why=reason, next="-o MODEL.report.html")
    if overwrite or not os.path.lexists(to) or _is_ours(to):
        return
    raise Refused(
        "file-exists",
        f"{to} is there, and is no report of ours",
        where=f"-o {to}",
        why="what somebody else wrote is not overwritten by the way",
        next=f"-o ANOTHER.html, or --replace to give up {to.name}",
    )


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MARK)) == MARK.encode()
    except OSError:
        return False
