"""What a dead editor or an older state left in a bundle's folder, removed; files of the user stay."""

from __future__ import annotations

import os
from pathlib import Path

from exporter.bundle.disk import disk
from exporter.bundle.layout import CONTENT_NAMED, WORK
from exporter.bundle.reader import Bundle
from exporter.bundle.safe_open import FOLDER_FLAGS, is_link, open_folder


def prune(path: Path, bundle: Bundle | None, keep: str = "") -> None:
    """Removes what a draft that was not committed, or an older state, left: content-named files, folders of stages.

    Files that a user put there have other names and stay. Only the holder of the lock comes here, so that every
    work folder but its own is a dead editor's.
    """
    declared = bundle.manifest.files if bundle is not None else {}
    with open_folder(path, []) as root:
        for name in sorted(os.listdir(root)):
            if WORK.fullmatch(name) and name != keep:
                _remove_work(path / name, root)
        for folder, folders, files, opened in os.fwalk(".", topdown=False, dir_fd=root):
            inside = folder[2:]
            if inside.startswith("."):
                continue
            for name in sorted(files):
                full = f"{inside}/{name}".lstrip("/")
                # A file is ours by its own content name, or by that of the folder of fixed names it lies in.
                if any(CONTENT_NAMED.search(part) for part in full.split("/")) and full not in declared:
                    disk.unlink(name, opened)
            for name in sorted(folders):
                if not name.startswith(".") and not is_link(name, opened) and _empty(name, opened):
                    disk.rmdir(name, opened)


def _remove_work(path: Path, root: int) -> None:
    if path.is_dir() and not path.is_symlink():
        disk.rmtree(path)
    else:
        disk.unlink(path.name, root)


def _empty(name: str, folder: int) -> bool:
    opened = os.open(name, FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
    try:
        return not os.listdir(opened)
    finally:
        os.close(opened)
