"""Every block passes on both targets; options that make none are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exporter import registry
from exporter.errors import Refused
from exporter.verdict import Verdict
from tests.model_defs.restoration.specimens import TARGETS, specimen

SHORT = ("T=1:20:60",)
BLOCKS = [
    ("fusion-concat", {}),
    ("fusion-add", {}),
    ("fusion-attention", {}),
    ("fusion-gated", {}),
    ("fusion-aligned", {}),
    ("fusion-hybrid", {}),
    ("dense-skip", {}),
    ("multiscale-preservation", {}),
]
SETTINGS = [
    ("fusion-aligned", {"bands": 129}),
    ("fusion-hybrid", {"level": "shallow"}),
    ("fusion-hybrid", {"level": "deep"}),
]
STRATEGIES = ["none", "add", "attention", "gated", "hybrid"]


def passes(name: str, folder: Path, options: dict[str, Any]) -> None:
    it = specimen(name, folder, SHORT, **options)
    for target in TARGETS:
        hop = it.verify(target)
        assert hop.verdict is Verdict.PASS, hop.reason


@pytest.mark.parametrize(("name", "options"), BLOCKS)
@pytest.mark.slow
def test_it_passes_on_both_targets(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    passes(name, tmp_path, options)


def test_the_decoder_of_the_document_passes_on_both_targets(tmp_path: Path) -> None:
    passes("fusion-decoder", tmp_path, {})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), SETTINGS)
def test_it_passes_with_every_setting(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    passes(name, tmp_path, options)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_decoder_passes_with_every_strategy(strategy: str, tmp_path: Path) -> None:
    passes("fusion-decoder", tmp_path, {"strategy": strategy})


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("fusion-decoder", {"strategy": "dense"}, "hybrid"),
        ("fusion-decoder", {"strategy": ["add"]}, "hybrid"),
        ("fusion-hybrid", {"level": 1}, "shallow"),
        ("fusion-hybrid", {"level": ["deep"]}, "shallow"),
        ("fusion-hybrid", {"channels": "16"}, "whole number"),
        ("fusion-aligned", {"bands": 0}, "from 1 to 257"),
        ("fusion-aligned", {"bands": True}, "whole number"),
        ("fusion-aligned", {"bands": 1_000_000}, "from 1 to 257"),
        ("fusion-aligned", {"bands": "65"}, "whole number"),
        ("fusion-concat", {"channels": 0}, "from 1 to 1024"),
        ("fusion-add", {"channels": True}, "whole number"),
        ("fusion-attention", {"channels": 10_000_000}, "from 1 to 1024"),
        ("fusion-gated", {"channels": None}, "whole number"),
        ("dense-skip", {"channels": 1.5}, "whole number"),
        ("dense-skip", {"channels": 10_000_000}, "from 1 to 1024"),
        ("multiscale-preservation", {"channels": True}, "whole number"),
        ("multiscale-preservation", {"channels": "16"}, "whole number"),
    ],
)
def test_options_that_make_no_model(name: str, options: dict[str, Any], word: str) -> None:
    with pytest.raises(Refused) as caught:
        registry.model(name, options)
    error = caught.value
    assert error.code == "bad-option" and error.what and error.where and error.next and word in error.why
