"""Twelve classics of torch.nn alone, as people write them: each a function that gives a module and example inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Tagger(nn.Module):
    """A bidirectional LSTM over words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(200, 32)
        self.lstm = nn.LSTM(32, 24, num_layers=2, batch_first=True, bidirectional=True)
        self.tags = nn.Linear(48, 9)

    def forward(self, words: Tensor) -> Tensor:
        states, _ = self.lstm(self.words(words))
        return self.tags(states)


class Translator(nn.Module):
    """A GRU reads, a GRU writes and attends to what was read; the written words are given."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(100, 32), nn.Embedding(120, 32)
        self.reader = nn.GRU(32, 40, batch_first=True)
        self.writer = nn.GRUCell(32 + 40, 40)
        self.out = nn.Linear(80, 120)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        read, state = self.reader(self.source(source))
        state, written = state[0], []
        for word in self.target(target).unbind(1):
            weights = torch.softmax(torch.einsum("bth,bh->bt", read, state), -1)
            seen = torch.einsum("bt,bth->bh", weights, read)
            state = self.writer(torch.cat([word, seen], -1), state)
            written.append(self.out(torch.cat([state, seen], -1)))
        return torch.stack(written, 1)


class Encoder(nn.Module):
    """A Transformer encoder with a mask of padding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(150, 48), nn.Parameter(torch.randn(1, 20, 48) * 0.1)
        layer = nn.TransformerEncoderLayer(48, 4, 96, batch_first=True, activation="gelu", norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, words: Tensor, padding: Tensor) -> Tensor:
        x = self.words(words) + self.places[:, : words.shape[1]]
        return self.layers(x, src_key_padding_mask=padding)


def _twice(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(),
        nn.Conv2d(after, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(),
    )  # fmt: skip


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = _twice(3, 12), _twice(12, 24), _twice(24, 48)
        self.up2, self.up1 = nn.ConvTranspose2d(48, 24, 2, stride=2), nn.ConvTranspose2d(24, 12, 2, stride=2)
        self.join2, self.join1, self.out = _twice(48, 24), _twice(24, 12), nn.Conv2d(12, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        first = self.down1(image)
        second = self.down2(F.max_pool2d(first, 2))
        deep = self.bottom(F.max_pool2d(second, 2))
        x = self.join2(torch.cat([self.up2(deep), second], 1))
        return self.out(self.join1(torch.cat([self.up1(x), first], 1)))


class Autoencoder(nn.Module):
    """Strided convolutions down, transposed ones up, with paddings of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ELU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ELU()
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1), nn.ELU(),
            nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1, groups=2), nn.ELU(), nn.Conv2d(8, 1, 3, padding="same"),
        )  # fmt: skip

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encoder(image)
        return torch.sigmoid(self.decoder(code)), code


class TemporalNet(nn.Module):
    """Causal dilated convolutions with residuals, weight-normalised."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.layers = nn.ModuleList(norm(nn.Conv1d(16, 16, 3, dilation=2**i)) for i in range(4))
        self.first, self.last = nn.Conv1d(5, 16, 1), nn.Conv1d(16, 2, 1)

    def forward(self, signal: Tensor) -> Tensor:
        x = self.first(signal)
        for index, layer in enumerate(self.layers):
            x = x + torch.relu(layer(F.pad(x, (2 * 2**index, 0))))
        return self.last(x)


class Warp(nn.Module):
    """Reads a picture where offsets, computed from it, say: what deformable convolutions do."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets, self.weights = nn.Conv2d(4, 2, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, features: Tensor) -> Tensor:
        batch, channels, height, width = features.shape
        offsets = torch.tanh(self.offsets(features)) * 2
        rows = torch.arange(height).view(1, -1, 1) + offsets[:, 0]
        columns = torch.arange(width).view(1, 1, -1) + offsets[:, 1]
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
        top, left = rows.floor(), columns.floor()
        flat, found = self.weights(features).flatten(2), torch.zeros_like(features)
        for down in (0, 1):
            for right in (0, 1):
                y, x = (top + down).clamp(max=height - 1), (left + right).clamp(max=width - 1)
                share = (1 - (rows - top - down).abs()) * (1 - (columns - left - right).abs())
                index = (y * width + x).long().flatten(1)[:, None].expand(batch, channels, -1)
                found = found + flat.gather(2, index).view_as(features) * share[:, None]
        return found


class Vocoder(nn.Module):
    """Upsampling by transposed convolutions with residual blocks of Snake-like activations, as vocoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(20, 32, 7, padding=3)
        self.ups = nn.ModuleList([nn.ConvTranspose1d(32, 16, 8, 4, 2), nn.ConvTranspose1d(16, 8, 4, 2, 1)])
        self.blocks = nn.ModuleList(nn.Conv1d(c, c, 3, padding=d, dilation=d) for c in (16, 8) for d in (1, 3))
        self.alphas = nn.ParameterList(nn.Parameter(torch.ones(1, c, 1)) for c in (16, 8))
        self.last = nn.Conv1d(8, 1, 7, padding=3)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.first(mel)
        for index, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            for block in self.blocks[2 * index : 2 * index + 2]:
                alpha = self.alphas[index]
                x = x + block(x + torch.sin(alpha * x) ** 2 / (alpha + 1e-9))
        return torch.tanh(self.last(x))


class Siamese(nn.Module):
    """One network for both of a pair; gives how alike they are."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2), nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 32, 3, stride=2), nn.SiLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 24),
        )  # fmt: skip

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return F.cosine_similarity(self.net(left), self.net(right))


class Detector(nn.Module):
    """A mapping of tensors, one of them in a mapping of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 24, 3, stride=4, padding=1), nn.InstanceNorm2d(24, affine=True), nn.Mish()
        )
        self.boxes, self.classes = nn.Conv2d(24, 4, 1), nn.Conv2d(24, 6, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor | dict[str, Tensor]]:
        x = self.body(image)
        scores = self.classes(x).flatten(2).transpose(1, 2)
        return {"boxes": self.boxes(x).flatten(2).transpose(1, 2).exp(), "aux": {"scores": scores.log_softmax(-1)}}


class Chooser(nn.Module):
    """Whole numbers out: the best classes and where they stand, beside their scores."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 10))

    def forward(self, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores = self.score(items)
        best = scores.topk(3, dim=-1)
        return best.values, best.indices, (scores > 0).sum(-1)


class LanguageModel(nn.Module):
    """The table of words is the last layer as well: tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.rnn = nn.Embedding(90, 28), nn.GRU(28, 28, batch_first=True)
        self.out = nn.Linear(28, 90, bias=False)
        self.out.weight = self.words.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.out(self.rnn(self.words(words))[0])


def _words(count: int, *shape: int) -> Tensor:
    return torch.arange(count).repeat(1 + shape[-1] * shape[0] // count)[: shape[0] * shape[1]].reshape(shape).flip(1)


def lstm_tagger() -> tuple[nn.Module, Tensor]:
    return Tagger(), _words(200, 2, 11)


def translator() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    return Translator(), (_words(100, 2, 9), _words(120, 2, 6))


def transformer_encoder() -> tuple[nn.Module, dict[str, Tensor]]:
    padding = torch.zeros(2, 14, dtype=torch.bool)
    padding[1, 9:] = True
    return Encoder(), {"words": _words(150, 2, 14), "padding": padding}


def unet() -> tuple[nn.Module, Tensor]:
    return UNet(), torch.rand(1, 3, 48, 64)


def autoencoder() -> tuple[nn.Module, Tensor]:
    return Autoencoder(), torch.rand(2, 1, 28, 28)


def temporal_net() -> tuple[nn.Module, Tensor]:
    return TemporalNet(), torch.randn(1, 5, 100)


def warp() -> tuple[nn.Module, Tensor]:
    return Warp(), torch.randn(1, 4, 24, 32)


def vocoder() -> tuple[nn.Module, Tensor]:
    return Vocoder(), torch.randn(1, 20, 50)


def siamese() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    return Siamese(), (torch.rand(3, 3, 40, 40), torch.rand(3, 3, 40, 40))


def detector() -> tuple[nn.Module, Tensor]:
    return Detector(), torch.rand(1, 3, 64, 64)


def chooser() -> tuple[nn.Module, Tensor]:
    return Chooser(), torch.randn(4, 7, 12)


def language_model() -> tuple[nn.Module, Tensor]:
    return LanguageModel(), _words(90, 2, 13)
