"""The trainer: what it learns, what survives an interruption, and each defect of the document's trainer, mended."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from exporter import program, registry
from exporter.cli import options
from exporter.errors import Refused, StageFailed
from exporter.graph import sha256
from exporter.host.metrics import srcc
from exporter.verdict import Verdict
from model_defs._photographs import DISTORTIONS
from model_defs.vqa import train
from model_defs.vqa.config import FUSIONS, SIZE, VQAConfig
from model_defs.vqa.config import OPTIONS as MODEL_OPTIONS
from model_defs.vqa.data import LEVELS, Material, batches, material, mirrored, split
from model_defs.vqa.losses import entropy, quality_loss, regularisers
from model_defs.vqa.options import HELD_OUT, Training
from model_defs.vqa.train import Epoch, Trainer
from tests.fakes import lab

from .specimens import TARGETS, specimen

pytest.importorskip("skimage")
OPTIONS = Training(epochs=4, batch=16, learning_rate=5e-3, size=24, crops=8, held_out_crops=8, threads=1)
# The model that the trainer's own page trains.
SMALL = {
    "fusion": "hierarchical",
    "backbone": "test_efficientnet",
    "second_backbone": "test_efficientnet",
    "feature_dim": 64,
    "dropout": 0.0,
    "drop_path": 0.0,
}
needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="timm, which has the backbones, is not installed")


class Tiny(nn.Module):
    """The smallest thing with all that a state must hold: a batch norm, a dropout, gates and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 12, 3, 2),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 16, 3, 2),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        )
        self.dropout = nn.Dropout(0.1)
        self.gate, self.score = nn.Linear(16, 4), nn.Linear(16, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.dropout(self.features(image * 4 - 2).mean(dim=(2, 3)))
        return {"quality_score": self.score(features), "gate_weights": self.gate(features).softmax(dim=-1)}


@pytest.fixture(scope="module")
def learnt() -> Material:
    return material(split()[0], OPTIONS.crops, OPTIONS.size, seed=0)


@pytest.fixture(scope="module")
def held() -> Material:
    return material(split()[1], OPTIONS.held_out_crops, OPTIONS.size, seed=1)


@pytest.fixture
def make(learnt: Material, held: Material) -> Callable[..., Trainer]:
    def made(**changes: object) -> Trainer:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        return Trainer(Tiny(), replace(OPTIONS, **changes), learnt, held)  # type: ignore[arg-type]

    return made


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def stopped_after(epochs: int) -> Callable[[Epoch], None]:
    def report(epoch: Epoch) -> None:
        if epoch.epoch + 1 == epochs:
            raise KeyboardInterrupt

    return report


# --------------------------------------------------------------------------------------------------------- material


def test_material_is_of_known_quality_and_repeats(learnt: Material) -> None:
    assert learnt.images.shape == (80, 24, 24, 3) and learnt.images.dtype == np.uint8
    assert learnt.scores.min() >= 0 and learnt.scores.max() <= 1 and learnt.scores.std() > 0.2
    assert np.bincount(learnt.kinds).tolist() == [20] * 4
    assert set(np.round(1 - learnt.scores, 6)) == set(LEVELS)
    again, other = (material(split()[0], OPTIONS.crops, OPTIONS.size, seed) for seed in (0, 1))
    np.testing.assert_array_equal(again.images, learnt.images)
    assert not np.array_equal(other.images, learnt.images)


def test_no_photograph_is_on_both_sides(learnt: Material, held: Material) -> None:
    assert set(learnt.photographs) | set(held.photographs) == set(range(14))
    assert set(held.photographs) == set(HELD_OUT) and not set(learnt.photographs) & set(held.photographs)
    for wrong in ((), (14,), tuple(range(14))):
        with pytest.raises(Refused, match="held-out") as caught:
            split(wrong)
        assert caught.value.code == "bad-option" and "0 to 13" in caught.value.why


def test_what_is_mirrored_depends_on_the_place_in_the_run_alone(learnt: Material) -> None:
    images = learnt.images[:32]
    first = mirrored(images, 0, 3, 5)
    np.testing.assert_array_equal(first, mirrored(images, 0, 3, 5))
    turned = [not np.array_equal(a, b) for a, b in zip(first, images, strict=True)]
    assert 4 < sum(turned) < 28
    np.testing.assert_array_equal(first[turned], images[turned][:, :, ::-1])
    assert not np.array_equal(first, mirrored(images, 0, 4, 5))


# ------------------------------------------------------------------------------------------------------ the whole loop


def test_the_loss_falls_and_the_order_is_learnt(tmp_path: Path) -> None:
    """Of one kind of distortion, which so small a network learns in seconds."""

    def noisy(photographs: list[int], seed: int) -> Material:
        found = material(photographs, 20, OPTIONS.size, seed)
        kept = found.kinds == DISTORTIONS.index("noise")
        return Material(found.images[kept], found.scores[kept], found.kinds[kept], found.photographs[kept])

    torch.set_num_threads(1)
    kept, out = split()
    options = replace(OPTIONS, epochs=20, batch=10)
    torch.manual_seed(0)
    trainer = Trainer(Tiny(), options, noisy(kept, 0), noisy(out, 1))
    best = trainer.fit(tmp_path)
    history = trainer.history
    assert [epoch.epoch for epoch in history] == list(range(20))
    assert history[-1].loss < 0.5 * history[0].loss
    assert best.srcc == max(epoch.srcc for epoch in history) and best.srcc > 0.7
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.safetensors", "state.pt"]


@pytest.mark.parametrize("where", ["between epochs", "in an epoch"])
def test_a_resumed_run_ends_as_an_uninterrupted_one(make: Callable[..., Trainer], tmp_path: Path, where: str) -> None:
    whole, first, second = make(), make(), make()
    whole.fit(tmp_path / "whole")
    steps = iter(range(100))

    def progress(done: int, of: int) -> None:
        if where == "in an epoch" and next(steps) == 12:  # of 5 steps per epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.fit(tmp_path / "cut", progress, stopped_after(2 if where == "between epochs" else 99))
    assert len(torch.load(tmp_path / "cut" / "state.pt", weights_only=True)["history"]) == 2
    torch.manual_seed(99)  # another process would be anywhere in its random numbers
    second.resume(tmp_path / "cut" / "state.pt")
    assert not second.exhausted
    second.fit(tmp_path / "cut")
    assert second.history == whole.history
    assert same(weights(second), weights(whole))
    assert same(load_file(tmp_path / "cut" / "best.safetensors"), load_file(tmp_path / "whole" / "best.safetensors"))


def test_a_run_is_not_resumed_with_other_options(make: Callable[..., Trainer], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make().fit(tmp_path, report=stopped_after(1))
    with pytest.raises(Refused, match="--batch 8") as caught:
        make(batch=8).resume(tmp_path / "state.pt")
    assert caught.value.code == "bad-option" and "16" in caught.value.why
    with pytest.raises(Refused) as caught:
        make().resume(tmp_path / "nothing.pt")
    assert caught.value.code == "missing-file"


def test_an_early_best_is_kept(make: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, seen = make(), []
    found = iter([(0.1, 0.0, 0.5), (0.1, 0.0, 0.9), (0.1, 0.0, 0.3), (0.1, 0.0, 0.9)])

    def validate() -> tuple[float, float, float]:
        seen.append(weights(trainer))
        return next(found)

    monkeypatch.setattr(trainer, "validate", validate)
    best = trainer.fit(tmp_path)
    assert best.epoch == 1, "the first of equals: later ones are no better"
    assert same(load_file(tmp_path / "best.safetensors"), seen[1])
    with safe_open(tmp_path / "best.safetensors", "pt") as file:
        assert file.metadata()["epoch"] == "1" and file.metadata()["srcc"] == "0.9"


def test_patience_ends_a_run_that_no_longer_improves(
    make: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(epochs=9, patience=2)
    found = iter([0.5, 0.6, 0.4, 0.6, 0.9])
    monkeypatch.setattr(trainer, "validate", lambda: (0.1, 0.0, next(found)))
    assert trainer.fit(tmp_path).epoch == 1
    assert len(trainer.history) == 4


@pytest.mark.parametrize("at", ["best.safetensors", "state.pt"])
def test_an_interrupted_write_keeps_the_older_file(tmp_path: Path, at: str) -> None:
    (tmp_path / at).write_bytes(b"older")
    with pytest.raises(KeyboardInterrupt), train._replacing(tmp_path / at) as path:
        path.write_bytes(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / at).read_bytes() == b"older" and len(list(tmp_path.iterdir())) == 1


def test_the_rate_falls_on_a_cosine_to_nothing(make: Callable[..., Trainer], tmp_path: Path) -> None:
    trainer = make()
    rates = []
    trainer.fit(tmp_path, report=lambda epoch: rates.append(trainer.scheduler.get_last_lr()[0]))
    wanted = [5e-3 * (1 + math.cos(math.pi * part)) / 2 for part in (0.25, 0.5, 0.75, 1.0)]
    assert rates == pytest.approx(wanted, abs=1e-9)


def test_a_gradient_is_clipped(make: Callable[..., Trainer]) -> None:
    trainer = make(clip=1e-3)
    trainer.model.train()
    trainer.step(torch.rand(8, 3, 24, 24), torch.full((8,), 100.0))
    norms = [p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]
    assert 0.9e-3 < float(torch.stack(norms).norm()) <= 1.001e-3


def test_only_matrices_and_kernels_decay(make: Callable[..., Trainer]) -> None:
    for group in make().optimizer.param_groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] > 0}


@needs_timm
def test_places_and_tokens_do_not_decay(learnt: Material, held: Material) -> None:
    """They have as many axes as matrices have; pulled to 0, all of them would become one."""
    from model_defs.vqa.network import VQA

    with torch.device("meta"):
        model = VQA(VQAConfig(fusion="self", feature_dim=16, num_heads=2))
    trainer = Trainer(model, OPTIONS, learnt, held, torch.device("meta"))
    decaying = {id(p): group["weight_decay"] > 0 for group in trainer.optimizer.param_groups for p in group["params"]}
    kept = {name for name, p in model.named_parameters() if p.ndim > 1 and decaying.get(id(p)) is False}
    assert kept == {
        "branch_2.backbone.model.cls_token",
        "branch_2.backbone.model.pos_embed",
        "branch_2.query_tokens",
        "fusion.pos_embedding",
    }


def test_a_loss_that_is_no_number_ends_the_run(make: Callable[..., Trainer]) -> None:
    trainer = make()
    trainer.step(torch.rand(4, 3, 24, 24), torch.rand(4))
    before = weights(trainer)["score.weight"]
    with pytest.raises(StageFailed, match="loss of step 2 of 20 is nan") as caught:
        trainer.step(torch.rand(4, 3, 24, 24), torch.full((4,), math.nan))
    assert "--learning-rate 0.00125" in caught.value.next and "epoch 1" in caught.value.where and caught.value.why
    assert torch.equal(weights(trainer)["score.weight"], before)


def test_a_gradient_that_is_no_number_ends_the_run_too(make: Callable[..., Trainer]) -> None:
    """Of a finite loss: the step would have made every weight NaN, and an epoch's last would have been kept."""
    trainer = make()
    before = weights(trainer)
    trainer.model.score.weight.register_hook(lambda gradient: gradient * math.inf)
    trainer.model.eval()
    with pytest.raises(StageFailed, match="norm of the gradient of step 1"):
        trainer.step(torch.rand(4, 3, 24, 24), torch.rand(4))
    assert same(weights(trainer), before)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("loss", "smooth"),
        ("loss", None),
        ("epochs", 0),
        ("batch", 1),
        ("batch", 2.5),
        ("batch", True),
        ("learning_rate", 0.0),
        ("learning_rate", "fast"),
        ("weight_decay", -1),
        ("clip", -1.0),
        ("clip", math.inf),
        ("huber", math.nan),
        ("huber", 0),
        ("diversity", math.nan),
        ("sparsity", -2),
        ("patience", -1),
        ("seed", -1),
        ("seed", 2**32),
        ("size", 1.0),
        ("threads", 0),
        ("bf16", 1),
        ("held_out", ()),
        ("held_out", (1, 1)),
        ("held_out", (-1,)),
        ("held_out", 3),
    ],
)
def test_bad_options_are_refused(option: str, value: object) -> None:
    with pytest.raises(Refused, match=f"--{option.replace('_', '-')}") as caught:
        Training(**{option: value})  # type: ignore[arg-type]
    assert caught.value.code == "bad-option" and caught.value.why and caught.value.next


@pytest.mark.parametrize("loss", ["mse", "l1"])
def test_a_delta_that_the_loss_does_not_read_is_refused(loss: str) -> None:
    assert Training(loss=loss).huber is None and Training().huber == 0.1
    with pytest.raises(Refused, match=r"--huber 0\.2") as caught:
        Training(loss=loss, huber=0.2)
    assert loss in caught.value.why


@pytest.mark.parametrize(
    ("option", "fusions"), [("sparsity", ("gated", "adaptive")), ("diversity", ("cross", "bidirectional", "self"))]
)
def test_a_regulariser_of_what_the_fusion_has_not_is_refused(option: str, fusions: tuple[str, ...]) -> None:
    options = replace(OPTIONS, size=32, held_out_size=32, **{option: 0.1})
    for fusion in FUSIONS:
        config = VQAConfig(fusion=fusion, second_backbone="efficientnet_b0")
        if fusion in fusions:
            train._refuse_unfit(options, config)
            continue
        with pytest.raises(Refused, match=f"--{option}") as caught:
            train.prepared(options, config)
        assert "nothing reads it" in caught.value.why


def test_every_option_has_a_meaning_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for option in fields(Training):
        assert f"--{option.name.replace('_', '-')}" in said
        assert option.metadata["help"].split(";")[0] in said.replace("- ", "-"), option.name


@pytest.fixture
def of_tiny(monkeypatch: pytest.MonkeyPatch, learnt: Material, held: Material) -> None:
    """The command trains :class:`Tiny`, whatever model is asked for."""

    def prepared(options: Training, config: VQAConfig, files: list[Path | None]) -> Trainer:
        assert files == [None, None]
        torch.manual_seed(options.seed)
        return Trainer(Tiny(), options, learnt, held, made_of=asdict(config))

    monkeypatch.setattr(train, "prepared", prepared)


def words_of(folder: Path, *more: str) -> list[str]:
    return ["-o", str(folder), "--set", "fusion=gated", "--epochs", "2", "--batch", "16", *more]


def exported(said: str) -> list[str]:
    """The words of the export command among what was printed."""
    (line,) = (line for line in said.splitlines() if line.startswith("exporter "))
    return shlex.split(line)


@pytest.mark.usefixtures("of_tiny")
def test_the_command_trains_and_says_how_to_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a folder whose name reads as markup; without the options that the definition does not take."""
    folder = tmp_path / "runs [bold]of me[/]"
    rates = [word for name in ("dropout", "drop_path", "attention_dropout") for word in ("--set", f"{name}=0.2")]
    more = ["--set", "feature_dim=64", "--set", "num_heads=4", "--held-out", "1,4,8,11"]
    assert train.main(words_of(folder, *rates, *more)) == 0
    said = capsys.readouterr().out
    assert "SRCC" in said and re.search(r"took \d+ min \d+ s", said)
    words = exported(said)
    assert words[:3] == ["exporter", "openvino", "vqa"]
    assert words[-2:] == ["--checkpoint", str(folder / "best.safetensors")]
    pairs = [pair for flag, pair in pairwise(words) if flag == "--set"]
    assert pairs == ["fusion=gated", "feature_dim=64", "num_heads=4"]
    definition = registry.model("vqa", options.settings(pairs))
    assert definition.options["feature_dim"] == 64 and definition.options["num_heads"] == 4


@pytest.mark.usefixtures("of_tiny")
def test_a_terminal_sees_how_far_an_epoch_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a file or a pipe does not: there it is a line per epoch alone."""
    assert train.main(words_of(tmp_path / "piped")) == 0
    assert "\r" not in (piped := capsys.readouterr().out) and "100%" not in piped
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert train.main(words_of(tmp_path / "shown")) == 0
    shown = capsys.readouterr().out
    assert "training" in shown and "100%" in shown and shown.count("SRCC") == piped.count("SRCC")


@pytest.mark.usefixtures("of_tiny")
def test_the_command_resumes_what_was_started_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(words_of(tmp_path)) == 0
    assert train.main(words_of(tmp_path, "--resume")) == 0
    capsys.readouterr()
    for more, word in (
        (["--seed", "1"], "--seed 1"),
        (["--set", "dropout=0.3"], "--set dropout=0.3"),
        (["--set", "fusion=adaptive"], "--set fusion=adaptive"),
        (["--set", "gate_hidden_dim=64"], "--set gate_hidden_dim=64"),
    ):
        assert train.main(words_of(tmp_path, *more, "--resume")) == 2
        assert word in capsys.readouterr().err
    assert train.main(words_of(tmp_path / "other", "--resume")) == 2
    assert "missing-file" in capsys.readouterr().err


def four_parts(said: str) -> bool:
    return "Traceback" not in said and all(part in said for part in ("error[", "where", "why", "next"))


@pytest.mark.parametrize(
    ("more", "code", "word"),
    [
        (["--seed", "-1"], 2, "--seed -1"),
        (["--held-out", "99"], 2, "photographs 0 to 13"),
        (["--set", "colour=red"], 2, "colour=red"),
        (["--set", "fusion=concat"], 2, "fusion=concat"),
        (["--loss", "mse", "--huber", "0.1"], 2, "--huber"),
        (["--size", "16"], 2, "--size 16"),
        (["--backbone-weights", "nowhere.safetensors"], 2, "nowhere.safetensors"),
    ],
)
def test_what_cannot_be_trained_ends_in_four_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], code: int, word: str
) -> None:
    assert train.main(["-o", str(tmp_path), "--set", "second_backbone=efficientnet_b0", *more]) == code
    said = capsys.readouterr().err
    assert four_parts(said) and word in said


@pytest.mark.parametrize("package", ["scikit-image", "timm"])
def test_without_a_package_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    if package == "timm":
        from model_defs import _timm

        find = _timm.importlib.util.find_spec
        monkeypatch.setattr(_timm.importlib.util, "find_spec", lambda name: None if name == package else find(name))
        _timm.library.cache_clear()
    else:
        monkeypatch.setattr("model_defs.vqa.data.count", lambda: 0)
    assert train.main(["-o", str(tmp_path), "--set", "second_backbone=efficientnet_b0"]) == 3
    said = capsys.readouterr().err
    assert four_parts(said) and package in said and "pip install '.[zoo]'" in said


@pytest.mark.usefixtures("of_tiny")
def test_a_folder_that_cannot_be_written_is_found_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert train.main(words_of(tmp_path / "file" / "runs")) == 2
    said = capsys.readouterr().err
    assert four_parts(said) and "unwritable-folder" in said


@pytest.mark.usefixtures("of_tiny")
def test_a_run_that_blows_up_says_at_which_step_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([0.1, 0.1, math.nan])
    monkeypatch.setattr(train, "quality_loss", lambda found, *_: found.sum() * 0 + next(losses))
    assert train.main(words_of(tmp_path)) == 4
    said = capsys.readouterr().err
    assert four_parts(said) and "step 3 of 10" in said and "--learning-rate" in said


@pytest.mark.usefixtures("of_tiny")
@pytest.mark.parametrize("epochs", [0, 1])
def test_an_interrupted_command_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    train_epoch = Trainer.train_epoch

    def interrupted(self: Trainer, *arguments: object) -> float:
        if len(self.history) == epochs:
            raise KeyboardInterrupt
        return train_epoch(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "train_epoch", interrupted)
    folder = tmp_path / "a run"
    assert train.main(words_of(folder)) == 130
    said = capsys.readouterr().err
    if not epochs:
        assert "nothing to go on from" in said
        return
    words = shlex.split(said.partition("next")[2])
    assert words[:3] == ["python", "-m", "model_defs.vqa.train"]
    monkeypatch.setattr(Trainer, "train_epoch", train_epoch)
    assert train.main(words[3:]) == 0
    assert len(torch.load(folder / "state.pt", weights_only=True)["history"]) == 2


@pytest.mark.parametrize("content", ["empty", "text", "other", "list"])
def test_a_state_that_is_none_is_refused(make: Callable[..., Trainer], tmp_path: Path, content: str) -> None:
    path = tmp_path / "state.pt"
    if content in ("empty", "text"):
        path.write_bytes(b"" if content == "empty" else b"no state")
    else:
        torch.save({"model": {}} if content == "other" else [1], path)
    with pytest.raises(Refused, match="is no state of a run") as caught:
        make().resume(path)
    assert caught.value.code == "bad-checkpoint" and caught.value.next


def test_the_weights_say_what_they_are_of(make: Callable[..., Trainer], tmp_path: Path) -> None:
    trainer = make(epochs=1)
    trainer.made_of = asdict(VQAConfig(fusion="gated"))
    trainer.fit(tmp_path)
    with safe_open(tmp_path / "best.safetensors", "pt") as file:
        assert json.loads(file.metadata()["made_of"]) == trainer.made_of
    assert torch.load(tmp_path / "state.pt", weights_only=True)["made_of"] == trainer.made_of


def test_the_random_numbers_of_cuda_are_kept_where_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    states, given = [torch.tensor([1, 2], dtype=torch.uint8)], []
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", given.extend)
    assert train._random_states(torch.device("cpu"))["cuda"] == []
    kept = train._random_states(torch.device("cuda"))
    train._set_random_states(kept, torch.device("cpu"))
    assert given == []
    train._set_random_states(kept, torch.device("cuda"))
    assert torch.equal(given[0], states[0])


def published(name: str, seed: int) -> dict[str, Tensor]:
    """Weights made at random of a whole network, classifier included, by timm's names."""
    from model_defs._timm import library

    torch.manual_seed(seed)
    made = library().create_model(name, pretrained=False).state_dict()
    return {key: torch.rand_like(value) if value.is_floating_point() else value for key, value in made.items()}


@needs_timm
@pytest.mark.parametrize("fusion", ["hierarchical", "gated"])
def test_training_starts_from_published_weights(tmp_path: Path, fusion: str) -> None:
    """One file as safetensors, one as a trainer's pickle under ``state_dict`` and ``module.``."""
    first, second = published("test_efficientnet", 1), published("test_efficientnet", 2)
    files = [tmp_path / "first.safetensors", tmp_path / "second.pth"]
    save_file(first, files[0])
    torch.save({"state_dict": {f"module.{name}": value for name, value in second.items()}}, files[1])
    config = VQAConfig(**{**SMALL, "fusion": fusion, "feature_dim": 16})  # type: ignore[arg-type]
    options = replace(OPTIONS, epochs=1, size=32, held_out_size=32, crops=1, held_out_crops=1)
    trainer = train.prepared(options, config, files)
    for branch, given in ((trainer.model.branch_1, first), (trainer.model.branch_2, second)):
        backbone = branch if fusion == "hierarchical" else branch.backbone
        found = backbone.model.state_dict()
        assert len(found) > 50 and all(torch.equal(found[name], given[name]) for name in found)
    assert trainer.made_of["backbone_weights"] == sha256(files[0])
    trainer.fit(tmp_path)
    train.prepared(options, config, files).resume(tmp_path / "state.pt")
    with pytest.raises(Refused, match="--second-backbone-weights"):
        train.prepared(options, config, [files[0], None]).resume(tmp_path / "state.pt")


@needs_timm
def test_weights_of_another_backbone_are_refused_with_the_nearest_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = published("test_efficientnet", 1)
    given["conv_stam.weight"] = given.pop("conv_stem.weight")
    save_file(given, tmp_path / "given.safetensors")
    sets = [word for pair in SMALL.items() for word in ("--set", "=".join(map(str, pair)))]
    assert train.main(["-o", str(tmp_path), *sets, "--backbone-weights", str(tmp_path / "given.safetensors")]) == 2
    said = capsys.readouterr().err
    assert four_parts(said) and "wrong-checkpoint" in said and "nearest: conv_stem.weight" in said


@pytest.mark.parametrize("config", [{"inputs": 2}, {"temporal": "tsm"}])
def test_a_model_of_more_than_one_image_is_not_trained_on_single_ones(config: dict[str, object]) -> None:
    with pytest.raises(Refused, match="--set") as caught:
        train.prepared(OPTIONS, VQAConfig(**config))  # type: ignore[arg-type]
    assert caught.value.code == "bad-option"


@pytest.mark.parametrize("sizes", [{}, {"size": 224}, {"held_out_size": 224}])
def test_a_vit_is_trained_at_its_own_size_alone(sizes: dict[str, int]) -> None:
    with pytest.raises(Refused, match="--size") as caught:
        train.prepared(replace(OPTIONS, **sizes), VQAConfig(second_backbone="vit_tiny_patch16_224"))
    assert caught.value.code == "bad-option"


@needs_timm
def test_what_is_trained_is_the_model_that_is_exported(tmp_path: Path) -> None:
    from model_defs.vqa.network import VQA

    config = VQAConfig(fusion="hierarchical", second_backbone="efficientnet_b0", feature_dim=16)
    options = replace(OPTIONS, epochs=1, size=32, held_out_size=40, crops=1, held_out_crops=2)
    trainer = train.prepared(options, config)
    started = weights(trainer)
    trainer.fit(tmp_path)
    assert trainer.held.images.shape == (8, 40, 40, 3)
    found = load_file(tmp_path / "best.safetensors")
    VQA(config).load_state_dict(found, strict=True)
    for name in ("branch_1.model.conv_stem.weight", "branch_2.model.conv_stem.weight", "quality_head.0.weight"):
        assert not torch.equal(found[name], started[name]), "all of it is trained"


Trained = tuple[Trainer, Epoch, Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The small model, trained with the trainer's defaults: in minutes on one core."""
    folder = tmp_path_factory.mktemp("trained")
    trainer = train.prepared(Training(threads=1), VQAConfig(**SMALL))  # type: ignore[arg-type]
    best = trainer.fit(folder)
    trainer.model.load_state_dict(load_file(folder / "best.safetensors"))
    trainer.model.eval()
    return trainer, best, folder / "best.safetensors"


@torch.no_grad()
def answers_of(model: nn.Module, images: np.ndarray) -> np.ndarray:
    return model(train.tensor_of(images))["quality_score"].reshape(-1).numpy()


def srcc_of(answers: np.ndarray, truths: np.ndarray) -> float:
    return srcc([{"score": answers}], [{"score": truths}])


@pytest.mark.slow
@needs_timm
@pytest.mark.xdist_group("vqa-trained")
def test_a_small_model_ranks_photographs_it_has_never_seen(trained: Trained) -> None:
    """Every kind of distortion and every photograph held out is ranked, not only all together."""
    trainer, best, _ = trained
    assert best.srcc >= 0.9 and best.plcc >= 0.9
    found = answers_of(trainer.model, trainer.held.images)
    for groups in (trainer.held.kinds, trainer.held.photographs):
        for group in np.unique(groups):
            assert srcc_of(found[groups == group], trainer.held.scores[groups == group]) >= 0.75


@pytest.mark.slow
@needs_timm
@pytest.mark.xdist_group("vqa-trained")
def test_what_was_trained_is_exported_and_ranks_as_eager_does(
    trained: Trained, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Its checkpoint passes on both targets; on photographs held out, at the size the graph takes, artifacts rank as
    the model itself does."""
    from model_defs.vqa.network import VQA

    options = {name: value for name, value in SMALL.items() if name in MODEL_OPTIONS}
    it = specimen("vqa", tmp_path, ("batch=1",), checkpoint=trained[2], **options)
    held = material(split()[1], 40, SIZE, seed=1)
    model = VQA(VQAConfig(**SMALL)).eval()  # type: ignore[arg-type]
    model.load_state_dict(load_file(trained[2]))
    eager = np.concatenate([answers_of(model, held.images[i : i + 1]) for i in range(len(held))])
    ranks = {"eager": srcc_of(eager, held.scores)}
    for target in TARGETS:
        hop = it.verify(target)
        assert hop.verdict is Verdict.PASS, (target, hop.reason)
        found = answers_of_artifact(it, target, held.images)
        np.testing.assert_allclose(found, eager, rtol=0, atol=1e-5)
        ranks[target] = srcc_of(found, held.scores)
    for name, value in ranks.items():
        record_property(f"srcc of {name}", value)
    print(", ".join(f"{name} {value:.4f}" for name, value in ranks.items()))
    assert ranks["eager"] >= 0.9
    assert all(value == pytest.approx(ranks["eager"], abs=1e-3) for value in ranks.values()), ranks


def answers_of_artifact(it: lab.Specimen, target: str, images: np.ndarray) -> np.ndarray:
    with program.open_artifact(registry.target(target), it.program, it.artifact(target), it.options) as runner:
        given = [train.tensor_of(images[i : i + 1]).numpy() for i in range(len(images))]
        return np.concatenate([runner.infer({"image": one})["quality_score"].reshape(-1) for one in given])


# ------------------------------------------------------------------------- the document's trainer, defect by defect


def test_numpy_was_not_imported(make: Callable[..., Trainer], held: Material) -> None:
    """The document's ``validate`` ends in a NameError: it uses ``np``, which nothing imports."""
    trainer = make()
    loss, plcc, rank = trainer.validate()
    assert all(math.isfinite(value) for value in (loss, plcc, rank))
    assert not trainer.model.training
    with torch.no_grad():
        found = trainer.model(train.tensor_of(held.images))["quality_score"][:, 0].numpy()
    assert plcc == pytest.approx(np.corrcoef(found, held.scores)[0, 1], abs=1e-6)


@pytest.mark.parametrize("loss", ["mse", "l1", "huber"])
def test_targets_were_broadcast_against_scores(loss: str) -> None:
    """The document compares scores ``(B, 1)`` with targets ``(B,)``: every one with each, a ``(B, B)`` loss."""
    options = Training(loss=loss)  # type: ignore[arg-type]
    wanted = torch.tensor([0.0, 0.5, 1.0])
    assert quality_loss(wanted[:, None], wanted, options) == 0
    assert quality_loss(wanted[:, None] + 0.2, wanted, options) > 0
    with pytest.raises(ValueError, match="scores for"):
        quality_loss(wanted[:, None], wanted[:2], options)


def test_the_optimizer_was_built_before_the_model_moved(learnt: Material, held: Material) -> None:
    """The document's optimizer holds the parameters of before ``model.to``, where moving makes new ones."""

    class Moved(Tiny):
        def to(self, device: torch.device) -> Moved:  # type: ignore[override]
            self.score = nn.Linear(16, 1)
            return self

    trainer = Trainer(Moved(), OPTIONS, learnt, held)
    trained = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in trainer.model.parameters()}


def test_huber_was_smooth_l1() -> None:
    """The document's ``huber`` is SmoothL1 at 1: for scores from 0 to 1 nothing but half the square."""
    options = Training(loss="huber", huber=0.1)
    errors = torch.tensor([0.05, 0.6])
    assert quality_loss(errors, torch.zeros(2), options) == pytest.approx((0.05**2 / 2 + 0.1 * (0.6 - 0.05)) / 2)
    assert quality_loss(errors, torch.zeros(2), options) != nn.functional.smooth_l1_loss(errors, torch.zeros(2))


@pytest.mark.parametrize("found", [[-0.2, -0.4], [math.nan, -0.9], [math.nan, math.nan]])
def test_a_best_of_zero_never_saved_a_model(
    make: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: list[float]
) -> None:
    """The document starts at a best SRCC of 0: what stays below, or is NaN for a constant answer, is never saved."""
    trainer, values = make(epochs=2), iter(found)
    monkeypatch.setattr(trainer, "validate", lambda: (0.1, 0.0, next(values)))
    best = trainer.fit(tmp_path)
    assert (tmp_path / "best.safetensors").is_file()
    assert best.epoch == (1 if math.isnan(found[0]) and not math.isnan(found[1]) else 0)


def test_the_checkpoint_pickled_the_configuration(make: Callable[..., Trainer], tmp_path: Path) -> None:
    """The document saves its configuration object: ``torch.load`` refuses the file as it should."""
    trainer = make(epochs=1)
    trainer.fit(tmp_path)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["options"] == json.loads(json.dumps(state["options"])) and state["options"]["batch"] == 16
    assert same(load_file(tmp_path / "best.safetensors"), weights(trainer))


@pytest.mark.parametrize("total", [2, 17, 33, 80])
def test_a_last_batch_of_one_image_broke_batch_norm(total: int) -> None:
    """The document's last batch may hold one image, which has no variance; here batches are nearly equal."""
    found = list(batches(total, 16, seed=0, epoch=0))
    assert sorted(np.concatenate(found).tolist()) == list(range(total))
    assert max(map(len, found)) <= 16 and min(map(len, found)) >= 2
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_the_loss_of_an_epoch_was_a_mean_of_batch_means(make: Callable[..., Trainer], held: Material) -> None:
    """The document averages the means of batches of different sizes: a last small batch counts too much."""
    trainer = make()
    trainer.held = Material(*(value[:5] for value in (held.images, held.scores, held.kinds, held.photographs)))
    sizes = []
    answer = trainer._answer
    trainer._answer = lambda images: sizes.append(len(images)) or answer(images)  # type: ignore[method-assign]
    old, train.VALIDATION_BATCH = train.VALIDATION_BATCH, 4
    try:
        loss, *_ = trainer.validate()
    finally:
        train.VALIDATION_BATCH = old
    with torch.no_grad():
        whole = answer(train.tensor_of(trainer.held.images))["quality_score"]
    assert sizes == [4, 1]
    assert loss == pytest.approx(float(quality_loss(whole, torch.from_numpy(trainer.held.scores), OPTIONS)), rel=1e-5)


def test_the_loss_in_training_was_one_too(make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, losses = make(batch=4), iter([1.0, 2.0])
    trainer.learnt = Material(*(value[:7] for value in vars(trainer.learnt).values()))
    monkeypatch.setattr(trainer, "step", lambda images, scores: next(losses))
    assert trainer.train_epoch() == pytest.approx((4 * 1.0 + 3 * 2.0) / 7)


def test_nothing_was_seeded(make: Callable[..., Trainer], tmp_path: Path) -> None:
    """Two runs of the document's trainer differ; here the seed decides the run."""
    first, again, other = make(epochs=1), make(epochs=1), make(epochs=1, seed=1)
    for index, trainer in enumerate((first, again, other)):
        trainer.fit(tmp_path / str(index))
    assert same(weights(first), weights(again)) and first.history == again.history
    assert not same(weights(first), weights(other))


def test_the_schedule_was_not_saved(make: Callable[..., Trainer], tmp_path: Path) -> None:
    """The document's checkpoint lacks the schedule: a resumed run starts again at the full rate."""
    with pytest.raises(KeyboardInterrupt):
        make().fit(tmp_path, report=stopped_after(3))
    resumed = make()
    resumed.resume(tmp_path / "state.pt")
    assert resumed.scheduler.get_last_lr()[0] == pytest.approx(5e-3 * (1 + math.cos(math.pi * 0.75)) / 2)


def test_sparsity_drove_gates_to_equal_weights() -> None:
    """The document minimises the sum of squares, least for equal weights; here one gate comes to have it all."""
    options = Training(sparsity=1.0)
    score = torch.zeros(1, 1)
    equal, chosen = torch.full((1, 4), 0.25), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    of_equal, of_chosen = (
        float(regularisers({"quality_score": score, "gate_weights": gates}, options)) for gates in (equal, chosen)
    )
    assert of_equal == pytest.approx(math.log(4)) and of_chosen == pytest.approx(0, abs=1e-6)
    logits = torch.tensor([[0.3, 0.2, 0.1, 0.0]], requires_grad=True)
    for _ in range(300):
        loss = regularisers({"quality_score": score, "gate_weights": logits.softmax(-1)}, options)
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - gradient).detach().requires_grad_()
    assert logits.softmax(-1).max() > 0.9


def test_attention_is_spread_by_its_regulariser() -> None:
    """The document's sign is right here, and stays: the loss is less for attention that is spread."""
    options = Training(diversity=0.5)
    score = torch.zeros(1, 1)
    spread, narrow = torch.full((1, 2, 4), 0.25), torch.tensor([[[1.0, 0, 0, 0]] * 2])
    losses = [
        float(regularisers({"quality_score": score, name: value}, options))
        for name in ("attention_weights", "attention_weights_1")
        for value in (spread, narrow)
    ]
    assert losses == pytest.approx([-0.5 * math.log(4), 0, -0.5 * math.log(4), 0], abs=1e-6)
    assert torch.isfinite(torch.autograd.grad(entropy(narrow.requires_grad_()), narrow)[0]).all()


def test_regularisers_that_are_off_are_not_there(make: Callable[..., Trainer]) -> None:
    outputs = {"quality_score": torch.zeros(2, 1), "gate_weights": torch.full((2, 4), math.nan)}
    assert regularisers(outputs, OPTIONS) == 0


def test_a_lower_precision_was_not_to_be_had(make: Callable[..., Trainer], learnt: Material) -> None:
    """The document knows no mixed precision; with it, losses are still taken in float32."""
    trainer = make(bf16=True)
    found = trainer._answer(train.tensor_of(learnt.images[:4]))["quality_score"]
    assert found.dtype == torch.float32
    exact = make()._answer(train.tensor_of(learnt.images[:4]))["quality_score"]
    torch.manual_seed(0)
    assert not torch.equal(found, exact)
    assert math.isfinite(trainer.step(train.tensor_of(learnt.images[:4]), torch.from_numpy(learnt.scores[:4])))
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
