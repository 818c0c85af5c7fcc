"""Rules of options: what breaks one is refused in four parts, what keeps it passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from exporter.errors import Refused
from exporter.settings import LARGEST, Settings

CHECK = Settings("restormer")


@pytest.mark.parametrize(
    "broken",
    [
        lambda: CHECK.one_of("variant", "colour", ("color", "gray")),
        lambda: CHECK.one_of("variant", ["color"], ("color", "gray")),
        lambda: CHECK.one_of("variant", None, {"color": 1}),
        lambda: CHECK.whole("dim", 0),
        lambda: CHECK.whole("dim", 1.0),
        lambda: CHECK.whole("dim", True),
        lambda: CHECK.whole("dim", "8"),
        lambda: CHECK.whole("dim", None),
        lambda: CHECK.whole("dim", LARGEST + 1),
        lambda: CHECK.whole("dim", 12, multiple=8),
        lambda: CHECK.whole("dim", 3, least=4),
        lambda: CHECK.flag("bias", "no"),
        lambda: CHECK.flag("bias", 0),
        lambda: CHECK.number("dropout", 1.0, 0, 1),
        lambda: CHECK.number("dropout", -0.1, 0, 1),
        lambda: CHECK.number("dropout", float("nan"), 0, 1),
        lambda: CHECK.number("dropout", True, 0, 2),
        lambda: CHECK.number("dropout", "0.5", 0, 1),
        lambda: CHECK.wholes("blocks", "4,6,6", count=4),
        lambda: CHECK.wholes("blocks", "4,6,x,8", count=4),
        lambda: CHECK.wholes("blocks", [1.5, 2], least=2),
        lambda: CHECK.wholes("blocks", [True, 2], least=2),
        lambda: CHECK.wholes("blocks", "4,0", least=2),
        lambda: CHECK.wholes("blocks", 4),
    ],
)
def test_what_breaks_a_rule_is_refused_in_four_parts(broken: Callable[[], object]) -> None:
    with pytest.raises(Refused) as caught:
        broken()
    error = caught.value
    assert error.code == "bad-option" and error.what.startswith("--set ") and error.what.endswith(" makes no restormer")
    assert (
        error.where.startswith("model restormer, option ") and error.why and error.next == "exporter models restormer"
    )


def test_what_keeps_the_rules_passes() -> None:
    CHECK.one_of("variant", "gray", ("color", "gray"))
    CHECK.whole("dim", 48, multiple=8)
    CHECK.flag("bias", False)
    CHECK.number("dropout", 0, 0, 1)
    assert CHECK.wholes("blocks", "4,6,6,8", count=4) == CHECK.wholes("blocks", [4, 6, 6, 8]) == (4, 6, 6, 8)


def test_a_misspelt_word_gets_the_nearest() -> None:
    with pytest.raises(Refused) as caught:
        CHECK.one_of("variant", "colr", ("color", "gray"))
    assert caught.value.why.endswith("nearest: color")
