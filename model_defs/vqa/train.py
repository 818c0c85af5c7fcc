"""Trains a quality model on photographs distorted by known amounts: ``python -m model_defs.vqa.train -o FOLDER``.

The document's trainer, repaired: AdamW on a cosine schedule, clipped gradients, PLCC and SRCC on photographs that are
held out, the best weights kept from the first epoch on, and an interrupted run that ends as an uninterrupted one.
FOLDER holds ``best.safetensors``, for ``exporter TARGET vqa --checkpoint``, and ``state.pt``, from which ``--resume``
goes on. The backbones start from random numbers, or from published weights of timm's: ``--backbone-weights``.

The options' defaults suit a small model that two CPU cores train in minutes, as the tests do::

    python -m model_defs.vqa.train -o small --set fusion=hierarchical --set feature_dim=64 --set dropout=0.0 \\
        --set drop_path=0.0 --set backbone=test_efficientnet --set second_backbone=test_efficientnet
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from exporter import checkpoint
from exporter.errors import ExporterError, Refused, StageFailed
from exporter.graph import sha256
from exporter.host.metrics import plcc, srcc

from .config import OPTIONS, SIZE, VITS, VQAConfig
from .data import Material, batches, material, mirrored, split
from .definitions import SMALLEST_SIDE
from .extractors import Backbone
from .losses import quality_loss, regularisers
from .network import PARTS, VQA
from .options import Training, bad

# Images per call when nothing is learnt; the answer does not depend on it.
VALIDATION_BATCH = 64
# Matrices by their shape, but places and tokens by what they are: pulled to 0, they would all become one.
UNDECAYED = ("pos_embed", "pos_embedding", "cls_token", "query_tokens")
WEIGHTS = ("backbone_weights", "second_backbone_weights")
COMMAND = ("python", "-m", "model_defs.vqa.train")
INTERRUPTED = 130


class OfCrops(VQA):
    """:class:`VQA` for crops of any size: convolutions take them, and a ViT refuses them by itself."""

    def _refuse_other_inputs(self, *inputs: Tensor | None) -> None:
        pass


@dataclass(frozen=True)
class Epoch:
    """What an epoch gave: mean losses per image, and the correlations on the photographs held out."""

    epoch: int
    loss: float
    held_out_loss: float
    plcc: float
    srcc: float


def _unheard(*_: object) -> None:
    """Tells nobody."""


@dataclass
class Trainer:
    """A model in training; everything that a resumed run needs is in :meth:`state`.

    Args:
        model: gives a dict with ``quality_score (B, 1)`` for images ``(B, 3, H, W)`` from 0 to 1.
        options: how it is trained.
        learnt: the material to train on.
        held: the material held out.
        device: where it is trained.
        made_of: what decides the model: its configuration and the digests of the weights it started from, as plain
            values by name. A run is resumed with the same.
    """

    model: nn.Module
    options: Training
    learnt: Material
    held: Material
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    made_of: Mapping[str, Any] = field(default_factory=dict)
    history: list[Epoch] = field(default_factory=list)

    def __post_init__(self) -> None:
        # The optimizer takes the parameters that will be trained: those on the device.
        self.model.to(self.device)
        steps = self.options.epochs * -(-len(self.learnt) // self.options.batch)
        self.optimizer = torch.optim.AdamW(self._groups(), lr=self.options.learning_rate)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=steps)

    def _groups(self) -> list[dict[str, Any]]:
        """Weight decay pulls matrices and kernels, and leaves norms, biases and :data:`UNDECAYED` alone."""
        trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        decayed = [p for name, p in trained if _decays(name, p)]
        others = [p for name, p in trained if not _decays(name, p)]
        decays = ((decayed, self.options.weight_decay), (others, 0.0))
        return [{"params": group, "weight_decay": decay} for group, decay in decays if group]

    @property
    def best(self) -> Epoch:
        """The epoch with the highest SRCC, the first of them; a constant answer, which has none, loses to any."""
        return max(self.history, key=lambda epoch: -math.inf if math.isnan(epoch.srcc) else epoch.srcc)

    @property
    def exhausted(self) -> bool:
        """Whether all epochs are over, or too many went by without a better one."""
        done = len(self.history)
        patience = self.options.patience
        return done >= self.options.epochs or bool(patience and done and done - self.best.epoch > patience)

    def step(self, images: Tensor, scores: Tensor) -> float:
        """One step; returns the loss without regularisers.

        Args:
            images: ``(B, 3, H, W)`` from 0 to 1.
            scores: ``(B,)``.

        Raises:
            StageFailed: ``stage-failed`` when the loss or its gradient is no number; the weights are as they were.
        """
        outputs = self._answer(images)
        loss = quality_loss(outputs["quality_score"], scores, self.options)
        self._refuse_not_finite("loss", loss)
        self.optimizer.zero_grad()
        (loss + regularisers(outputs, self.options)).backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=self.options.clip)
        self._refuse_not_finite("norm of the gradient", norm)
        self.optimizer.step()
        self.scheduler.step()
        return loss.item()

    def _refuse_not_finite(self, what: str, value: Tensor) -> None:
        if math.isfinite(value.item()):
            return
        rate = self.options.learning_rate
        step, total = self.scheduler.last_epoch + 1, self.scheduler.T_max
        raise StageFailed(
            "stage-failed",
            f"the {what} of step {step} of {total} is {value.item()}",
            where=f"training, epoch {len(self.history) + 1}, learning rate {rate:g}",
            why="a step along it would make every weight NaN; most often the learning rate is too large",
            next=f"start again with --learning-rate {rate / 4:g}",
        )

    def train_epoch(self, progress: Callable[[int, int], None] = _unheard) -> float:
        """All of the material once; returns the mean loss per image."""
        self.model.train()
        epoch, total, done = len(self.history), 0.0, 0
        for index, chosen in enumerate(batches(len(self.learnt), self.options.batch, self.options.seed, epoch)):
            images = mirrored(self.learnt.images[chosen], self.options.seed, epoch, index)
            loss = self.step(tensor_of(images).to(self.device), self._scores(self.learnt, chosen))
            total, done = total + loss * len(chosen), done + len(chosen)
            progress(done, len(self.learnt))
        return total / done

    @torch.no_grad()
    def validate(self) -> tuple[float, float, float]:
        """Mean loss per image, PLCC and SRCC on what is held out; a correlation of a constant answer is NaN."""
        self.model.eval()
        total, answers = 0.0, []
        for start in range(0, len(self.held), VALIDATION_BATCH):
            chosen = np.arange(start, min(start + VALIDATION_BATCH, len(self.held)))
            found = self._answer(tensor_of(self.held.images[chosen]).to(self.device))["quality_score"]
            loss = quality_loss(found, self._scores(self.held, chosen), self.options)
            total += loss.item() * len(chosen)
            answers.append(found.reshape(-1).cpu().numpy())
        values, truths = [{"score": np.concatenate(answers)}], [{"score": self.held.scores}]
        return total / len(self.held), plcc(values, truths), srcc(values, truths)

    def fit(
        self,
        folder: Path,
        progress: Callable[[int, int], None] = _unheard,
        report: Callable[[Epoch], None] = _unheard,
    ) -> Epoch:
        """Trains until the last epoch, keeping the best weights and the state in ``folder``; returns the best epoch."""
        folder.mkdir(parents=True, exist_ok=True)
        if not self.history:
            torch.manual_seed(self.options.seed)
        while not self.exhausted:
            loss = self.train_epoch(progress)
            self.history.append(Epoch(len(self.history), loss, *self.validate()))
            latest = self.history[-1]
            if self.best is latest:
                _save_weights(self.model, folder / "best.safetensors", latest, self.made_of)
            with _replacing(folder / "state.pt") as path:
                torch.save(self.state(), path)
            report(latest)
        return self.best

    def state(self) -> dict[str, Any]:
        """Everything that decides the rest of the run: tensors, numbers and text, no objects."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "random": _random_states(self.device),
            "history": [asdict(epoch) for epoch in self.history],
            "options": _plain(asdict(self.options)),
            "made_of": _plain(self.made_of),
        }

    def resume(self, path: Path) -> None:
        """Goes on where ``path`` ends.

        Raises:
            Refused: ``bad-option`` when the run was started with other options or another model; ``missing-file``;
                ``bad-checkpoint`` when it is no state of a run.
        """
        state = _read_state(path, self.device, self.state().keys())
        for name, (given, started) in _changed(_plain(asdict(self.options)), state["options"]).items():
            raise bad(name, given, f"the run was started with {started}, and goes on with it")
        for name, (given, started) in _changed(_plain(self.made_of), state["made_of"]).items():
            word, value = (name, given) if name in WEIGHTS else ("set", f"{name}={given}")
            raise bad(word, value, f"the run was started with {started}, and goes on with it")
        checkpoint.load_state(self.model, state["model"], f"file {path}")
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        _set_random_states(state["random"], self.device)

    def _answer(self, images: Tensor) -> dict[str, Any]:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.options.bf16):
            outputs: dict[str, Any] = self.model(images)
        return {name: value.float() if isinstance(value, Tensor) else value for name, value in outputs.items()}

    def _scores(self, of: Material, chosen: np.ndarray) -> Tensor:
        return torch.from_numpy(of.scores[chosen]).to(self.device)


# ------------------------------------------------------------------------------------------------- tensors and files


def tensor_of(images: np.ndarray) -> Tensor:
    """uint8 ``(B, H, W, 3)`` to float32 ``(B, 3, H, W)`` from 0 to 1."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255.0


def _decays(name: str, parameter: Tensor) -> bool:
    return parameter.ndim > 1 and name.rpartition(".")[2] not in UNDECAYED


def _save_weights(model: nn.Module, path: Path, epoch: Epoch, made_of: Mapping[str, Any]) -> None:
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    said = {name: str(value) for name, value in asdict(epoch).items()} | {"made_of": json.dumps(_plain(made_of))}
    with _replacing(path) as staging:
        save_file(tensors, staging, metadata=said)


def _random_states(device: torch.device) -> dict[str, Any]:
    """Of PyTorch's generators: the CPU's, and CUDA's where the model is trained there, which draws its dropouts."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if device.type == "cuda" else []}


def _set_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"].cpu())
    if device.type == "cuda" and states["cuda"]:
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])


def _read_state(path: Path, device: torch.device, names: Iterable[str]) -> dict[str, Any]:
    """The state of a run, as data.

    Raises:
        Refused: ``missing-file``, or ``bad-checkpoint``.
    """
    if not path.is_file():
        remedy = "leave --resume out, or name the folder with -o"
        raise Refused("missing-file", f"there is no {path}", why="a run goes on from its state", next=remedy)
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        absent = [name for name in names if name not in state]
        reason = f"it lacks {', '.join(absent)}" if absent else ""
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError, OSError) as error:
        state, reason = {}, str(error).partition("\n")[0] or type(error).__name__
    if reason:
        raise Refused(
            "bad-checkpoint",
            f"{path.name} is no state of a run: {reason}",
            where=f"file {path}",
            why="a run goes on from all of its state, or it would be another run",
            next="leave --resume out, and start again",
        )
    return dict(state)


def _changed(given: Mapping[str, Any], started: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs, by name: as it is given now, and as the run was started."""
    names = [*given, *(name for name in started if name not in given)]
    both = {name: (given.get(name), started.get(name)) for name in names}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A neighbour to write to, which becomes ``path`` when it is whole: an interrupted run keeps the older file."""
    staging = path.with_name(f".{path.name}.part")
    try:
        yield staging
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same as plain values: a file of them needs no class of ours to be read."""
    value: dict[str, Any] = json.loads(json.dumps(dict(values)))
    return value


# ------------------------------------------------------------------------------------------------------ command line


def prepared(options: Training, config: VQAConfig, weights: Sequence[Path | None] = (None, None)) -> Trainer:
    """A trainer of a new model on new material, all of it decided by the arguments.

    Args:
        options: how it is trained.
        config: what it is made of.
        weights: files with published weights of the first and of the second backbone.

    Raises:
        Refused: ``bad-option`` for a model that takes more than one image at a time, or none of this size, or that
            has nothing a regulariser is about; or what :func:`exporter.checkpoint.read` and
            :meth:`Backbone.load` raise.
        Incomplete: ``runtime-absent`` where timm or scikit-image is not installed.
    """
    _refuse_unfit(options, config)
    torch.set_num_threads(options.threads)
    kept, out = split(options.held_out)
    torch.manual_seed(options.seed)
    model = OfCrops(config)
    for branch, path in zip((model.branch_1, model.branch_2), weights, strict=True):
        if path is not None:
            _start_from(branch, path)
    learnt = material(kept, options.crops, options.size, options.seed)
    held = material(out, options.held_out_crops, options.held_out_size, options.seed + 1)
    digests = [None if path is None else sha256(path) for path in weights]
    made_of = asdict(config) | dict(zip(WEIGHTS, digests, strict=True))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Trainer(model, options, learnt, held, device, made_of)


def _refuse_unfit(options: Training, config: VQAConfig) -> None:
    """Refuses options of training that do not go with the model."""
    if config.inputs != 1 or config.temporal != "none":
        raise bad("set", f"inputs={config.inputs}, temporal={config.temporal}", "the material is single images")
    if any(name in VITS for name in config.backbones) and {options.size, options.held_out_size} != {SIZE}:
        raise bad("size", options.size, f"a ViT takes images of {SIZE} pixels alone, also those held out")
    for name in ("size", "held_out_size"):
        if getattr(options, name) < SMALLEST_SIDE:
            raise bad(name, getattr(options, name), f"the backbones take {SMALLEST_SIDE} pixels at least")
    options.refuse_idle(PARTS[config.fusion])


def _start_from(branch: nn.Module, path: Path) -> None:
    backbone = branch if isinstance(branch, Backbone) else branch.backbone
    assert isinstance(backbone, Backbone)
    backbone.load(checkpoint.read(path), f"file {path}, backbone {backbone.name}")


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: an error's own, or 130 after Ctrl-C."""
    from exporter.cli import render

    words = sys.argv[1:] if words is None else list(words)
    asked = _parser().parse_args(words)
    try:
        _train(asked)
    except ExporterError as error:
        render.failed(error)
        return error.exit_code
    except KeyboardInterrupt:
        print(_how_to_go_on(words, asked.output), file=sys.stderr)
        return INTERRUPTED
    return 0


def _train(asked: argparse.Namespace) -> None:
    """Trains as the command line asks, and says how it goes.

    Raises:
        ExporterError: what :func:`prepared`, :meth:`Trainer.resume` and :meth:`Trainer.fit` raise.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(highlight=False, markup=False, soft_wrap=True)
    begun = time.monotonic()
    options = Training(**{option.name: getattr(asked, option.name) for option in fields(Training)})
    config = VQAConfig(**dict(_setting(pair) for pair in asked.set))
    _refuse_folder(asked.output)
    trainer = prepared(options, config, [getattr(asked, name) for name in WEIGHTS])
    if asked.resume:
        trainer.resume(asked.output / "state.pt")
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=len(trainer.learnt))

        def show(done: int, of: int) -> None:
            # Painted at once when whole: an epoch shorter than the bar's own clock would end unseen.
            bar.update(task, completed=done, total=of, refresh=done == of)

        def report(epoch: Epoch) -> None:
            console.print(
                f"epoch {epoch.epoch + 1:3d}  loss {epoch.loss:.4f}  held out {epoch.held_out_loss:.4f}  "
                f"PLCC {epoch.plcc:.3f}  SRCC {epoch.srcc:.3f}  best {trainer.best.srcc:.3f}"
            )
            bar.update(task, completed=0)

        best = trainer.fit(asked.output, show, report)
    minutes, seconds = divmod(round(time.monotonic() - begun), 60)
    console.print(f"best: epoch {best.epoch + 1}, SRCC {best.srcc:.3f}, PLCC {best.plcc:.3f}")
    console.print(f"took {minutes} min {seconds} s")
    console.print(_how_to_export(asked.set, asked.output))


def _how_to_export(pairs: Sequence[str], folder: Path) -> str:
    """The command that exports what was trained, without the options that only training reads."""
    sets = [word for pair in pairs if pair.partition("=")[0] in OPTIONS for word in ("--set", pair)]
    return shlex.join(["exporter", "openvino", "vqa", *sets, "--checkpoint", str(folder / "best.safetensors")])


def _how_to_go_on(words: Sequence[str], folder: Path) -> str:
    if not (folder / "state.pt").is_file():
        return "interrupted before the first epoch ended: there is nothing to go on from"
    again = [*COMMAND, *words, *(["--resume"] if "--resume" not in words else [])]
    return f"interrupted: the last whole epoch is kept\n  next   {shlex.join(again)}"


def _refuse_folder(folder: Path) -> None:
    """Before anything is made: what cannot be kept is not worth the time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK) else "it is read-only"
    except OSError as error:
        reason = str(error)
    if reason:
        raise Refused(
            "unwritable-folder",
            f"{folder} cannot be written: {reason}",
            where=f"folder {folder}",
            why="the weights and the state of the run are kept there",
            next="name a folder of yours with -o",
        )


def _setting(pair: str) -> tuple[str, Any]:
    """``KEY=VALUE`` of the model; a value that reads as a number is one."""
    name, _, text = pair.partition("=")
    if name not in {f.name for f in fields(VQAConfig)}:
        known = ", ".join(f.name for f in fields(VQAConfig))
        raise bad("set", pair, f"the options of the model are {known}")
    try:
        return name, json.loads(text)
    except ValueError:
        return name, text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model_defs.vqa.train", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the weights and the state")
    parser.add_argument("--resume", action="store_true", help="go on with the run that the folder holds")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an option of the model")
    for name, which in zip(WEIGHTS, ("first", "second"), strict=True):
        meaning = f"published weights the {which} backbone starts from, by timm's names: .safetensors or .pth"
        parser.add_argument(_flag(name), type=Path, metavar="FILE", help=meaning)
    for option in fields(Training):
        meaning, kind = option.metadata["help"], option.metadata["type"]
        if kind is bool:
            parser.add_argument(_flag(option.name), action="store_true", default=option.default, help=meaning)
            continue
        shown = "N,N" if kind is tuple else None
        kind = _numbers if kind is tuple else kind
        meaning += "" if option.default is None else f" ({_said(option.default)})"
        parser.add_argument(_flag(option.name), type=kind, default=option.default, metavar=shown, help=meaning)
    return parser


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _said(default: Any) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


if __name__ == "__main__":
    raise SystemExit(main())
