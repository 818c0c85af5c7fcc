"""What a command needs of a bundle: a smaller bundle that is one by every rule, and the files that will be opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exporter import registry
from exporter.bundle import Bundle
from exporter.graph import data_of
from exporter.latency.subjects import looked_at
from exporter.manifest import CaseInfo, Manifest, encode, mentioned


@dataclass(frozen=True)
class Shipment:
    """What goes to a device.

    Attributes:
        name: what the bundle is called there: 64 digits, the same for the same graph.
        manifest: the manifest there.
        files: those that will be opened, in the order they go.
        path_of: where a file lies here, after it was checked against its digest.
    """

    name: str
    manifest: Manifest
    files: tuple[str, ...]
    path_of: Callable[[str], Path]

    @property
    def encoded(self) -> bytes:
        """The bytes of the manifest there."""
        return encode(self.manifest)

    def bytes_of(self, name: str) -> int:
        """How long a file is."""
        return self.manifest.files[name].bytes


def to_verify(bundle: Bundle, keys: Sequence[str]) -> Shipment:
    """The artifacts with every case, and the yardsticks that they are judged by."""
    made = _reduced(bundle, keys, bundle.manifest.cases)
    cases = [case.file for case in made.cases]
    return _shipment(bundle, made, [*cases, *made.yardsticks.values(), *_counts(made), *_artifacts(made)])


def to_profile(bundle: Bundle, keys: Sequence[str], layers: bool = False) -> Shipment:
    """The artifacts with the one case that is timed; where layers are timed, with what each has to do."""
    made = _reduced(bundle, keys, looked_at(bundle.file, bundle.manifest, keys))
    cases, counts = [case.file for case in made.cases], _counts(made) if layers else []
    return _shipment(bundle, made, [*cases, *made.yardsticks.values(), *counts, *_artifacts(made)])


def to_run(bundle: Bundle, key: str) -> Shipment:
    """One artifact."""
    made = _reduced(bundle, [key], ())
    return _shipment(bundle, made, _artifacts(made))


def to_compile(bundle: Bundle, key: str, name: str) -> Shipment:
    """The graphs, with all that the artifact is judged by: the device writes into this bundle, so it is whole.

    Args:
        bundle: the bundle.
        key: ``target/precision``, which it need not hold yet.
        name: what it is called there: another than where artifacts are opened.
    """
    made = _reduced(bundle, [key], bundle.manifest.cases)
    return replace(_shipment(bundle, made, made.files), name=name)


def _shipment(bundle: Bundle, manifest: Manifest, files: Iterable[str]) -> Shipment:
    wanted = list(dict.fromkeys(files))
    beside = [data for data in map(data_of, wanted) if data in manifest.files]
    return Shipment(manifest.key, manifest, tuple(dict.fromkeys([*wanted, *beside])), bundle.file)


def _reduced(bundle: Bundle, keys: Sequence[str], cases: Sequence[CaseInfo]) -> Manifest:
    held = bundle.manifest
    graphs = {name: replace(graph, traced=graph.simplified) for name, graph in held.graphs.items()}
    targets = {key: held.targets[key] for key in keys if key in held.targets}
    yardsticks = {name: file for name, file in held.yardsticks.items() if name in {key.split("/")[1] for key in keys}}
    manifest = replace(
        held, graphs=graphs, cases=tuple(cases), yardsticks=yardsticks, targets=targets, reports={}, onnx_tests=(),
        files={},
    )  # fmt: skip
    named = {name for _, name in mentioned(manifest)}
    named |= {data for data in map(data_of, named) if data in held.files}
    return replace(manifest, files={name: held.files[name] for name in sorted(named)})


def _artifacts(manifest: Manifest) -> list[str]:
    """The files of the artifacts; their graphs too, where they may have to be compiled again before they are opened."""
    names = list[str]()
    for info in manifest.targets.values():
        names += info.files.values()
        if registry.target(info.target).guarded:
            names += [info.graphs.get(name, graph.simplified) for name, graph in manifest.graphs.items()]
    return names


def _counts(manifest: Manifest) -> list[str]:
    return [graph.work for graph in manifest.graphs.values() if graph.work]


def sizes(lacking: Mapping[str, int], shipment: Shipment) -> int:
    """How many bytes are still to be copied."""
    return sum(shipment.bytes_of(name) - offset for name, offset in lacking.items())
