"""Fixtures that many tests share; what is slow to make is made once in a session."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run, so that a red run means a change; EXPORTER_FUZZ=1 looks for new ones.
settings.register_profile("steady", derandomize=True, database=None, deadline=None)
if "EXPORTER_FUZZ" not in os.environ:
    settings.load_profile("steady")

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("EXPORTER_DATA", ROOT.parent / "shared" / "data"))

# Neither the user's cache nor what the test before made: a stage that a test waits for must run. Tests of the cache
# bound it anew, in a folder of their own.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="exporter-tests-cache-")
os.environ["EXPORTER_CACHE_MB"] = "0"
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

# Fixtures that take a model's name, and the folders whose files share bundles that take seconds to make.
MODEL_FIXTURES = ("name", "it", "each", "model")
SHARING = ("cli", "device", "targets")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Put tests that share something slow into one worker, so that it is made once.

    Marked as they are collected, since xdist may read the groups before a conftest's next hook is called.
    """
    folder = item.path.relative_to(ROOT / "tests").parts[0]
    given = getattr(getattr(item, "callspec", None), "params", {})
    names = [given[fixture] for fixture in MODEL_FIXTURES if isinstance(given.get(fixture), str)]
    if folder == "contract" and names:
        item.add_marker(pytest.mark.xdist_group(names[0]))
    elif folder in SHARING:
        item.add_marker(pytest.mark.xdist_group(str(item.path)))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of published checkpoints and recordings."""
    if not DATA.is_dir():
        pytest.skip(f"NO DATA: {DATA} is absent; set EXPORTER_DATA to the folder that holds gtcrn/gtcrn_dns3.tar")
    return DATA


@pytest.fixture(scope="session")
def gtcrn_checkpoint(data: Path) -> Path:
    """The published weights of GTCRN."""
    path = data / "gtcrn" / "gtcrn_dns3.tar"
    if not path.is_file():
        pytest.skip(f"NO DATA: {path} is absent; set EXPORTER_DATA")
    return path


@pytest.fixture(scope="session")
def specimens(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., object]:
    """``specimens(model, seed=0)``: a built-in model traced, simplified and referenced, made once."""
    from tests.fakes.lab import Specimen, specimen

    made: dict[tuple[str, int], Specimen] = {}

    def of(model: str, seed: int = 0) -> Specimen:
        if (model, seed) not in made:
            made[model, seed] = specimen(model, tmp_path_factory.mktemp(f"{model}-{seed}"), seed)
        return made[model, seed]

    return of
