"""What the children of a diagnosis are asked, and where they look."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exporter import registry
from exporter.bundle import Bundle
from exporter.candidate import feeds_of
from exporter.errors import Refused
from exporter.hops import interface_of
from exporter.manifest import Manifest, TargetInfo
from exporter.models.rebuild import Code, build_of, missing
from exporter.preflight import Opening, options_of, ready
from exporter.stages import Stages
from exporter.target import OWN_SCALES

Cases = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Asking:
    """Asks the children about one bundle; each answer is that of the function in ``child`` that is asked.

    Attributes:
        bundle: what is diagnosed.
        stages: runs the children.
        folder: a place to write to.
        opening: how artifacts are opened.
        code: the weights and the model, where they were given.
    """

    bundle: Bundle
    stages: Stages
    folder: Path
    opening: Opening
    code: Code

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.bundle.manifest

    @property
    def common(self) -> dict[str, Any]:
        """What every child is told of the model."""
        return interface_of(self.manifest, options_of(self.manifest, "fp32", 0))

    def graphs(self, hop: str) -> dict[str, Path]:
        """The ``traced`` or the ``simplified`` graphs."""
        return {name: self.bundle.file(getattr(graph, hop)) for name, graph in self.manifest.graphs.items()}

    def in_traced(self, cases: Cases) -> Any:
        """In the traced graphs, against what PyTorch captured."""
        lacking = missing(self.manifest, self.code)
        if lacking:
            given = "--checkpoint FILE" if self.manifest.weights.kind == "checkpoint" else "--model MODEL"
            raise Refused(
                "samples-need-reference",
                f"tracing is to blame, and what was traced cannot be built here: {lacking}",
                where=f"bundle {self.bundle.path}",
                why="a graph is compared with what it was traced from",
                next=f"exporter diagnose {self.bundle.path} {given}, where torch is installed",
            )
        build = build_of(self.manifest, self.code)
        asked = {"build": build, "weights": self.manifest.weights.digest, "graphs": self._texts("traced")}
        return self._run("traced", "in_traced", cases, asked)

    def in_simplified(self, cases: Cases, passes: Sequence[str], after: str = "simplified") -> Any:
        """In the simplified graphs, or those of another hop, against the traced ones, pass by pass."""
        asked = {
            "before": self._texts("traced"), "graphs": self._texts(after), "passes": list(passes), "precision": "fp32",
        }  # fmt: skip
        return self._run("simplified", "in_simplified", cases, asked)

    def in_lowered(self, key: str, cases: Cases) -> Any:
        """In the graphs that a target was given, against the simplified ones."""
        graphs = {name: str(self.bundle.file(file)) for name, file in self.manifest.targets[key].graphs.items()}
        asked = {
            "before": self._texts("simplified"), "graphs": graphs, "passes": None,
            "precision": self.manifest.targets[key].precision,
        }  # fmt: skip
        return self._run("lowered", "in_simplified", cases, asked)

    def in_artifact(self, key: str, cases: Cases, form: str | None) -> Any:
        """In what a target compiled, against the graphs it was given."""
        info = self.manifest.targets[key]
        made = ready(self.bundle.file, self.manifest, key, self.stages, self.opening)
        calibration = self._calibration(info) if info.way in OWN_SCALES else {}
        options = replace(made.options, calibration=calibration, kept=tuple(info.kept))
        asked = made.as_request() | {
            "options": options.__dict__, "target": info.target, "form": form or info.forms[0],
            "precision": info.precision, "graphs": self._texts("simplified")
            | {name: str(self.bundle.file(file)) for name, file in info.graphs.items()},
        }  # fmt: skip
        return self._run(key, "in_artifact", cases, asked)

    def _calibration(self, info: TargetInfo) -> dict[str, tuple[str, ...]]:
        """What each graph takes its scales from, as it did when the artifact was compiled."""
        files = [self.bundle.file(name) for name in info.calibration.files] if info.calibration else []
        folder = self._place()
        return feeds_of(self.stages, self.manifest, self.bundle.file, files, folder)

    def in_runner(self, hop: str, cases: Cases) -> Any:
        """In what ran the graphs of a hop, against the graphs themselves."""
        asked = {
            "target": registry.graph_runners()[0].name, "form": None, "artifact": None, "precision": "fp32",
            "graphs": self._texts(hop), "options": options_of(self.manifest, "fp32", 0).__dict__,
        }  # fmt: skip
        return self._run(f"{hop}, run", "in_artifact", cases, asked)

    def _run(self, what: str, function: str, cases: Cases, asked: Mapping[str, Any]) -> Any:
        request = {**self.common, **asked, "cases": list(cases), "folder": str(self._place())}
        return self.stages.run(f"diagnose {what}", f"exporter.diagnose.child:{function}", request)

    def _place(self) -> Path:
        self.folder.mkdir(exist_ok=True)
        return Path(tempfile.mkdtemp(dir=self.folder))

    def _texts(self, hop: str) -> dict[str, str]:
        return {name: str(path) for name, path in self.graphs(hop).items()}
