"""Trains a quality model on photographs distorted by known amounts: ``python -m model_defs.vqa.train -o FOLDER``.

The document's trainer, repaired: AdamW on a cosine schedule, clipped gradients, PLCC and SRCC on photographs that are
held out, the best weights kept from the first epoch on, and an interrupted run that ends as an uninterrupted one.
FOLDER holds ``best.safetensors``, for ``exporter TARGET vqa --checkpoint``, and ``state.pt``, from which ``--resume``
goes on.

The options' defaults suit a small model that two CPU cores train in minutes, as the tests do::

    python -m model_defs.vqa.train -o small --set fusion=hierarchical --set feature_dim=64 --set dropout=0.0 \\
        --set drop_path=0.0 --set backbone=test_efficientnet --set second_backbone=test_efficientnet
"""

from __future__ import annotations

import argparse
import json
import math
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from exporter.errors import Refused
from exporter.host.metrics import plcc, srcc

from .config import SIZE, VITS, VQAConfig
from .data import Material, batches, material, mirrored, split
from .losses import Training, bad, quality_loss, regularisers
from .network import VQA

# Images per call when nothing is learnt; the answer does not depend on it.
VALIDATION_BATCH = 64


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
    """

    model: nn.Module
    options: Training
    learnt: Material
    held: Material
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    history: list[Epoch] = field(default_factory=list)

    def __post_init__(self) -> None:
        # The optimizer takes the parameters that will be trained: those on the device.
        self.model.to(self.device)
        steps = self.options.epochs * -(-len(self.learnt) // self.options.batch)
        self.optimizer = torch.optim.AdamW(self._groups(), lr=self.options.learning_rate)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=steps)

    def _groups(self) -> list[dict[str, Any]]:
        """Weight decay pulls matrices and kernels, and leaves norms and biases alone."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        matrices, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
        decays = ((matrices, self.options.weight_decay), (others, 0.0))
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
            FloatingPointError: when the loss is no number: the weights are lost, the last state is not.
        """
        outputs = self._answer(images)
        loss = quality_loss(outputs["quality_score"], scores, self.options)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"the loss is {loss.item()}; a smaller learning rate than the one given is needed")
        self.optimizer.zero_grad()
        (loss + regularisers(outputs, self.options)).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=self.options.clip)
        self.optimizer.step()
        self.scheduler.step()
        return loss.item()

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
                _save_weights(self.model, folder / "best.safetensors", latest)
            with _whole(folder / "state.pt") as path:
                torch.save(self.state(), path)
            report(latest)
        return self.best

    def state(self) -> dict[str, Any]:
        """Everything that decides the rest of the run: tensors, numbers and text, no objects."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "random": torch.get_rng_state(),
            "history": [asdict(epoch) for epoch in self.history],
            "options": _plain(self.options),
        }

    def resume(self, path: Path) -> None:
        """Goes on where ``path`` ends.

        Raises:
            Refused: ``bad-option`` when the run was started with other options; ``missing-file``.
        """
        if not path.is_file():
            remedy = "leave --resume out, or name the folder with -o"
            raise Refused("missing-file", f"there is no {path}", why="a run goes on from its state", next=remedy)
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name, value in _plain(self.options).items():
            if state["options"].get(name) != value:
                raise bad(name, value, f"the run was started with {state['options'].get(name)}, and goes on with it")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        torch.set_rng_state(state["random"].cpu())

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


def _save_weights(model: nn.Module, path: Path, epoch: Epoch) -> None:
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    with _whole(path) as staging:
        save_file(tensors, staging, metadata={name: str(value) for name, value in asdict(epoch).items()})


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A neighbour to write to, which becomes ``path`` when it is whole: an interrupted run keeps the older file."""
    staging = path.with_name(f".{path.name}.part")
    try:
        yield staging
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def _plain(options: Training) -> dict[str, Any]:
    """Options as plain values: a file of them needs no class of ours to be read."""
    value: dict[str, Any] = json.loads(json.dumps(asdict(options)))
    return value


# ------------------------------------------------------------------------------------------------------ command line


def prepared(options: Training, config: VQAConfig) -> Trainer:
    """A trainer of a new model on new material, all of it decided by the options and the seed.

    Raises:
        Refused: ``bad-option`` for a model that takes more than one image at a time, or none of this size.
        Incomplete: ``runtime-absent`` where scikit-image is not installed.
    """
    if config.inputs != 1 or config.temporal != "none":
        raise bad("set", f"inputs={config.inputs}, temporal={config.temporal}", "the material is single images")
    if any(name in VITS for name in config.backbones) and {options.size, options.held_out_size} != {SIZE}:
        raise bad("size", options.size, f"a ViT takes images of {SIZE} pixels alone, also those held out")
    torch.set_num_threads(options.threads)
    kept, out = split(options.held_out)
    learnt = material(kept, options.crops, options.size, options.seed)
    held = material(out, options.held_out_crops, options.held_out_size, options.seed + 1)
    torch.manual_seed(options.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Trainer(OfCrops(config), options, learnt, held, device)


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from rich.console import Console
    from rich.progress import Progress

    asked = _parser().parse_args(words)
    console = Console()
    try:
        options = Training(**{f.name: getattr(asked, f.name) for f in fields(Training)})
        trainer = prepared(options, VQAConfig(**dict(_setting(pair) for pair in asked.set)))
        if asked.resume:
            trainer.resume(asked.output / "state.pt")
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task("epoch 1", total=len(trainer.learnt))

            def report(epoch: Epoch) -> None:
                console.print(
                    f"epoch {epoch.epoch + 1:3d}  loss {epoch.loss:.4f}  held out {epoch.held_out_loss:.4f}  "
                    f"PLCC {epoch.plcc:.3f}  SRCC {epoch.srcc:.3f}  best {trainer.best.srcc:.3f}"
                )
                bar.update(task, description=f"epoch {epoch.epoch + 2}", completed=0)

            best = trainer.fit(asked.output, lambda done, of: bar.update(task, completed=done, total=of), report)
    except Refused as error:
        console.print(f"{error}\n  {error.why}\n  next: {error.next}", markup=False, soft_wrap=True)
        return error.exit_code
    sets = "".join(f" --set {pair}" for pair in asked.set)
    console.print(f"best: epoch {best.epoch + 1}, SRCC {best.srcc:.3f}, PLCC {best.plcc:.3f}", markup=False)
    console.print(f"exporter openvino vqa{sets} --checkpoint {asked.output / 'best.safetensors'}", soft_wrap=True)
    return 0


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
    types = typing.get_type_hints(Training)
    for option in fields(Training):
        flag = f"--{option.name.replace('_', '-')}"
        kind: Any = types[option.name]
        if kind is bool:
            parser.add_argument(flag, action="store_true", default=option.default)
        elif option.name == "held_out":
            parser.add_argument(flag, type=_numbers, default=option.default, metavar="N,N", help="photographs")
        else:
            parser.add_argument(flag, type=kind if kind in (int, float) else str, default=option.default)
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


if __name__ == "__main__":
    raise SystemExit(main())
