"""What a child says of a model that only children may build: everything of a definition but its code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from exporter.budget import Budget
from exporter.manifest.fields import read
from exporter.spec import Checkpoint, Dim, HostStep, ModelDef, Part, Sample, State, Stream, Tensor

Samples = Callable[[], Iterable[Sample]]


@dataclass(frozen=True)
class DescribedPart:
    """A :class:`~exporter.spec.Part` without its code."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    repeat: int | str
    state: tuple[State, ...]


@dataclass(frozen=True)
class Described:
    """A :class:`~exporter.spec.ModelDef` without its code; ``samples`` and ``calibration`` say whether it has any."""

    name: str
    family: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    source: str
    licence: str
    dims: tuple[Dim, ...]
    state: tuple[State, ...]
    stream: Stream | None
    checkpoint: Checkpoint | None
    before: tuple[HostStep, ...]
    after: tuple[HostStep, ...]
    metrics: tuple[str, ...]
    samples: bool
    calibration: bool
    budget: Budget
    parts: tuple[DescribedPart, ...]
    undetectable: tuple[str, ...]
    metadata: dict[str, str]
    options: dict[str, Any]
    weighted: bool
    notes: tuple[str, ...]

    @classmethod
    def of(cls, definition: ModelDef) -> Described:
        """What there is to say of a definition."""
        parts = tuple(DescribedPart(p.name, p.inputs, p.outputs, p.repeat, p.state) for p in definition.parts)
        special: dict[str, Any] = {
            "samples": definition.samples is not None, "calibration": definition.calibration is not None,
            "parts": parts, "metadata": dict(definition.metadata), "options": dict(definition.options),
        }  # fmt: skip
        same = cls.__dataclass_fields__.keys() - special.keys()
        return cls(**special, **{name: getattr(definition, name) for name in same})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Described:
        """What :meth:`as_json` said."""
        described: Described = read(cls, value, "")
        return described

    def as_json(self) -> dict[str, Any]:
        """It for the way from a child to its parent."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def definition(self, samples: Samples | None = None, calibration: Samples | None = None) -> ModelDef:
        """The definition, for whoever builds nothing."""
        parts = tuple(Part(p.name, _elsewhere, p.inputs, p.outputs, p.repeat, p.state) for p in self.parts)
        special = {"samples", "calibration", "parts"}
        same = {name: getattr(self, name) for name in self.__dataclass_fields__.keys() - special}
        return ModelDef(build=_elsewhere, samples=samples, calibration=calibration, parts=parts, **same)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _elsewhere(*_: Any) -> NoReturn:
    raise AssertionError("a model of a user's own is built in children alone")
