"""What the options of a definition (``--set KEY=VALUE``) may be: one refusal, and the rules that definitions share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from exporter.errors import Refused, nearest

# No published network is wider, deeper or longer: beyond it a typing error would ask for all of a machine's memory.
LARGEST = 65_536


@dataclass(frozen=True)
class Settings:
    """The options of one model; every method refuses a value that breaks its rule, and returns nothing else.

    Args:
        model: the name users type.
    """

    model: str

    def refusal(self, option: str, value: object, rule: str) -> Refused:
        """The error about one option, to be raised: ``rule`` says what its value is, as in *it is odd*."""
        return Refused(
            "bad-option",
            f"--set {option}={value} makes no {self.model}",
            where=f"model {self.model}, option {option}",
            why=rule,
            next=f"exporter models {self.model}",
        )

    def one_of(self, option: str, value: object, known: Collection[str]) -> None:
        """One of several words.

        Raises:
            Refused: ``bad-option``, with the nearest word.
        """
        if not isinstance(value, str) or value not in known:
            rule = f"it is one of {', '.join(known)}{nearest(str(value), list(known))}"
            raise self.refusal(option, value, rule)

    def whole(self, option: str, value: object, least: int = 1, most: int = LARGEST, multiple: int = 1) -> None:
        """A whole number from ``least`` to ``most``, a multiple of ``multiple``.

        Raises:
            Refused: ``bad-option``.
        """
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not least <= value <= most or value % multiple:  # type: ignore[operator]
            rule = f"it is a whole number from {least} to {most}" + (f", a multiple of {multiple}" * (multiple > 1))
            raise self.refusal(option, value, rule)

    def flag(self, option: str, value: object) -> None:
        """True or false: any other word would count as true.

        Raises:
            Refused: ``bad-option``.
        """
        if not isinstance(value, bool):
            raise self.refusal(option, value, "it is true or false")

    def number(self, option: str, value: object, least: float, below: float) -> None:
        """A number from ``least`` to below ``below``.

        Raises:
            Refused: ``bad-option``.
        """
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not least <= value < below:  # type: ignore[operator]
            raise self.refusal(option, value, f"it is a number from {least:g} to below {below:g}")

    def wholes(self, option: str, value: object, least: int = 1, count: int | None = None) -> tuple[int, ...]:
        """Positive whole numbers with commas between them, or a list of them.

        Args:
            option: its name.
            value: ``"4,6,6,8"``, or the same as a list.
            least: how many there are at least.
            count: how many there are exactly.

        Returns:
            The numbers.

        Raises:
            Refused: ``bad-option``.
        """
        parts = value.split(",") if isinstance(value, str) else value
        try:
            numbers = tuple(int(str(part)) for part in parts) if isinstance(parts, list | tuple) else ()
        except (ValueError, TypeError):
            numbers = ()
        fits = len(numbers) == count if count is not None else len(numbers) >= least
        if not fits or not all(1 <= number <= LARGEST for number in numbers):
            many = f"{count}" if count is not None else f"at least {least}"
            rule = f"it is {many} whole numbers from 1 to {LARGEST}, with commas between them"
            raise self.refusal(option, value, rule)
        return numbers
