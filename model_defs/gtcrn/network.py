"""GTCRN, the grouped temporal convolutional recurrent network for speech enhancement, in its offline form.

Source: Rong, Sun, Zhang, Hu, Zhu, Lu, "GTCRN: A Speech Enhancement Model Requiring Ultralow Computational
Resources", ICASSP 2024. Names and shapes of the tensors are those of the checkpoints published at
https://github.com/Xiaobin-Rong/gtcrn (MIT): 271 tensors, 48,245 parameters, 24,576 of them the frozen ERB filters.

Axes: B batch, C channels, T frames (16 ms apart), F frequency: 257 bins of a 512-point STFT at 16 kHz, 129 bands
after the ERB compression, 65 and then 33 after the two strided convolutions. All values are dimensionless spectra.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SAMPLE_RATE = 16_000
"""Samples per second the checkpoints were trained at."""

FFT_SIZE = 512
"""Samples per STFT window (periodic square-root Hann, hop 256)."""

BINS = FFT_SIZE // 2 + 1
"""Bins of one spectrum."""

LINEAR_BINS = 65
"""Low bins that bypass the ERB filters."""

ERB_BANDS = 64
"""ERB bands that stand for the remaining bins."""

CHANNELS = 16
"""Channels of every hidden feature map."""

HALF = CHANNELS // 2
"""Channels that a grouped block transforms; the other half passes by."""

BANDS = 33
"""Width of the feature maps between encoder and decoder."""

DILATIONS = (1, 2, 5)
"""Time dilations of the encoder's three grouped blocks; the decoder mirrors them."""


def erb_filters() -> Tensor:
    """Computes the triangular filters on the equivalent-rectangular-bandwidth scale.

    With ``erb(f) = 21.4 log10(1 + 0.00437 f)`` (Glasberg and Moore, 1990; ``f`` in Hz), the centres are spaced
    evenly in ``erb`` from the first compressed bin to the Nyquist frequency and rounded to bins; filter ``i`` rises
    linearly from the centre before it to its own, and falls to the next.

    Returns:
        The filters, (64 bands, 192 bins), in the default dtype.
    """
    edges = torch.tensor([LINEAR_BINS / FFT_SIZE * SAMPLE_RATE, SAMPLE_RATE / 2], dtype=torch.float64)
    low, high = (21.4 * torch.log10(1 + 0.00437 * edges)).tolist()
    scale = torch.linspace(low, high, ERB_BANDS, dtype=torch.float64)
    centres = torch.round((10 ** (scale / 21.4) - 1) / 0.00437 / SAMPLE_RATE * FFT_SIZE)
    left, right = centres[:-1, None], centres[1:, None]
    bins = torch.arange(LINEAR_BINS, BINS, dtype=torch.float64)
    inside = (left <= bins) & (bins < right)
    # The published filters were computed with this guard against empty intervals, in float64, and stored as float32.
    guard = 1e-12
    filters = torch.zeros(ERB_BANDS, bins.numel(), dtype=torch.float32)
    filters[:-1] += torch.where(inside, (right - bins + guard) / (right - left + guard), 0).float()
    filters[1:] += torch.where(inside, (bins - left + guard) / (right - left + guard), 0).float()
    filters[-1] = torch.where(bins >= centres[-2], 1 - filters[-2], 0)
    return filters.to(torch.get_default_dtype())


def spectrum_features(spec: Tensor) -> Tensor:
    """Stacks magnitude, real and imaginary part.

    Args:
        spec: Complex spectrum, (B, 257, T, 2), real and imaginary part last.

    Returns:
        Features, (B, 3, T, 257).
    """
    real, imag = spec.permute(0, 3, 2, 1).unbind(1)
    magnitude = torch.sqrt(real**2 + imag**2 + 1e-12)
    return torch.stack((magnitude, real, imag), dim=1)


def apply_mask(spec: Tensor, mask: Tensor) -> Tensor:
    """Multiplies a spectrum with a complex ratio mask.

    Args:
        spec: Complex spectrum, (B, 257, T, 2).
        mask: Complex mask, (B, 2, T, 257).

    Returns:
        The complex product, (B, 257, T, 2).
    """
    real, imag = spec.unbind(-1)
    mask_real, mask_imag = mask.transpose(2, 3).unbind(1)
    return torch.stack((real * mask_real - imag * mask_imag, imag * mask_real + real * mask_imag), dim=-1)


def unfold_bands(x: Tensor) -> Tensor:
    """Gives every band its two neighbours as further channels (subband feature extraction).

    Args:
        x: Feature map, (B, C, T, F).

    Returns:
        Feature map, (B, 3 C, T, F): channel ``3 c + k`` holds channel ``c`` at band ``f + k - 1``, zero outside.
    """
    width = x.shape[-1]
    padded = F.pad(x, (1, 1))
    return torch.stack([padded[..., k : k + width] for k in range(3)], dim=2).flatten(1, 2)


def shuffle_channels(first: Tensor, second: Tensor) -> Tensor:
    """Interleaves two feature maps.

    Args:
        first: Even channels of the result, (B, C, T, F).
        second: Odd channels of the result, (B, C, T, F).

    Returns:
        Feature map, (B, 2 C, T, F).
    """
    return torch.stack((first, second), dim=2).flatten(1, 2)


class ERB(nn.Module):
    """Compression of the upper bins to ERB bands and its counterpart; the weights are frozen.

    Tensors: ``erb_fc.weight`` (64, 192) and ``ierb_fc.weight`` (192, 64), transposes of each other.
    """

    def __init__(self) -> None:
        super().__init__()
        filters = erb_filters()
        self.erb_fc = nn.Linear(BINS - LINEAR_BINS, ERB_BANDS, bias=False)
        self.ierb_fc = nn.Linear(ERB_BANDS, BINS - LINEAR_BINS, bias=False)
        self.erb_fc.weight = nn.Parameter(filters.clone(), requires_grad=False)
        self.ierb_fc.weight = nn.Parameter(filters.T.contiguous(), requires_grad=False)

    def compress(self, x: Tensor) -> Tensor:
        """Maps bins (B, C, T, 257) to bands (B, C, T, 129)."""
        return torch.cat((x[..., :LINEAR_BINS], self.erb_fc(x[..., LINEAR_BINS:])), dim=-1)

    def expand(self, x: Tensor) -> Tensor:
        """Maps bands (B, C, T, 129) to bins (B, C, T, 257)."""
        return torch.cat((x[..., :LINEAR_BINS], self.ierb_fc(x[..., LINEAR_BINS:])), dim=-1)


class ConvBlock(nn.Module):
    """Convolution over frequency with stride 2, batch normalisation, activation.

    Args:
        conv: The convolution or transposed convolution.
        act: The activation.
    """

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, act: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.bn = nn.BatchNorm2d(conv.out_channels)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, T, F) to (B, C', T, F'); F' is (F + 1) / 2, or 2 F - 1 where transposed."""
        return self.act(self.bn(self.conv(x)))


class TRA(nn.Module):
    """Temporal recurrent attention: one gate per channel and frame, from the energies so far."""

    def __init__(self) -> None:
        super().__init__()
        self.att_gru = nn.GRU(HALF, CHANNELS, batch_first=True)
        self.att_fc = nn.Linear(CHANNELS, HALF)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scales every channel of every frame.

        Args:
            x: Feature map, (B, 8, T, F).
            state: Hidden state before the first frame, (1, B, 16); zero where None.

        Returns:
            The gated feature map, (B, 8, T, F), and the state after the last frame, (1, B, 16).
        """
        energy = x.square().mean(-1).transpose(1, 2)
        hidden, state = self.att_gru(energy, state)
        gate = torch.sigmoid(self.att_fc(hidden)).transpose(1, 2)
        return x * gate.unsqueeze(-1), state


class GTConvBlock(nn.Module):
    """Grouped temporal convolution: half of the channels is transformed, then shuffled with the other half.

    The transformed half goes through neighbouring bands, a pointwise convolution to 16 channels, a causal dilated
    3 x 3 depthwise convolution, a pointwise convolution back to 8 channels, and temporal attention.

    Args:
        dilation: Frames between the taps of the depthwise convolution.
        transposed: Whether the convolutions are transposed ones (decoder).
    """

    def __init__(self, dilation: int, transposed: bool) -> None:
        super().__init__()
        conv = nn.ConvTranspose2d if transposed else nn.Conv2d
        # A transposed convolution crops what its padding says; a plain one would add it.
        time_padding = 2 * dilation if transposed else 0
        self.past = 2 * dilation
        self.point_conv1 = conv(3 * HALF, CHANNELS, 1)
        self.point_bn1 = nn.BatchNorm2d(CHANNELS)
        self.point_act = nn.PReLU()
        self.depth_conv = conv(
            CHANNELS, CHANNELS, 3, padding=(time_padding, 1), dilation=(dilation, 1), groups=CHANNELS
        )
        self.depth_bn = nn.BatchNorm2d(CHANNELS)
        self.depth_act = nn.PReLU()
        self.point_conv2 = conv(CHANNELS, HALF, 1)
        self.point_bn2 = nn.BatchNorm2d(HALF)
        self.tra = TRA()

    def widen(self, x: Tensor) -> Tensor:
        """Maps the transformed half (B, 8, T, F) to the depthwise convolution's input (B, 16, T, F)."""
        return self.point_act(self.point_bn1(self.point_conv1(unfold_bands(x))))

    def narrow(self, x: Tensor) -> Tensor:
        """Maps ``2 * dilation`` past frames and T new ones (B, 16, 2 d + T, F) to (B, 8, T, F)."""
        return self.point_bn2(self.point_conv2(self.depth_act(self.depth_bn(self.depth_conv(x)))))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, 16, T, F) to (B, 16, T, F); the frames before the first are zero."""
        transformed, passed = x.chunk(2, dim=1)
        wide = F.pad(self.widen(transformed), (0, 0, self.past, 0))
        gated, _ = self.tra(self.narrow(wide))
        return shuffle_channels(gated, passed)


class GroupedGRU(nn.Module):
    """Two GRUs side by side, each on its half of the features.

    Args:
        hidden_size: Hidden units of both together, per direction.
        bidirectional: Whether each runs in both directions.
    """

    def __init__(self, hidden_size: int, bidirectional: bool = False) -> None:
        super().__init__()
        self.rnn1 = nn.GRU(HALF, hidden_size // 2, batch_first=True, bidirectional=bidirectional)
        self.rnn2 = nn.GRU(HALF, hidden_size // 2, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Runs both along the second axis.

        Args:
            x: Sequences, (N, L, 16).
            state: Hidden states before the first step, (directions, N, hidden_size); zero where None.

        Returns:
            The outputs, (N, L, directions * hidden_size), and the states after the last step.
        """
        x1, x2 = x.chunk(2, dim=-1)
        state1, state2 = (None, None) if state is None else state.chunk(2, dim=-1)
        # cuDNN and MKL want a contiguous state; a chunk is a strided view.
        y1, state1 = self.rnn1(x1, None if state1 is None else state1.contiguous())
        y2, state2 = self.rnn2(x2, None if state2 is None else state2.contiguous())
        return torch.cat((y1, y2), dim=-1), torch.cat((state1, state2), dim=-1)


class DPGRNN(nn.Module):
    """Dual-path grouped RNN: along the bands of each frame (both ways), then along the frames of each band."""

    def __init__(self) -> None:
        super().__init__()
        self.intra_rnn = GroupedGRU(HALF, bidirectional=True)
        self.intra_fc = nn.Linear(CHANNELS, CHANNELS)
        self.intra_ln = nn.LayerNorm((BANDS, CHANNELS), eps=1e-8)
        self.inter_rnn = GroupedGRU(CHANNELS)
        self.inter_fc = nn.Linear(CHANNELS, CHANNELS)
        self.inter_ln = nn.LayerNorm((BANDS, CHANNELS), eps=1e-8)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Runs both paths, each with a residual connection.

        Args:
            x: Feature map, (B, 16, T, 33).
            state: Hidden state of the inter-frame path before the first frame, (1, 33 B, 16); zero where None.

        Returns:
            Feature map, (B, 16, T, 33), and the state after the last frame, (1, 33 B, 16).
        """
        batch = x.shape[0]
        x = x.permute(0, 2, 3, 1)
        intra, _ = self.intra_rnn(x.flatten(0, 1))
        x = x + self.intra_ln(self.intra_fc(intra).unflatten(0, (batch, -1)))
        inter, state = self.inter_rnn(x.transpose(1, 2).flatten(0, 1), state)
        x = x + self.inter_ln(self.inter_fc(inter).unflatten(0, (batch, BANDS)).transpose(1, 2))
        return x.permute(0, 3, 1, 2), state


class Encoder(nn.Module):
    """Two strided convolutions over frequency and three grouped temporal convolutions."""

    def __init__(self) -> None:
        super().__init__()
        shape = {"kernel_size": (1, 5), "stride": (1, 2), "padding": (0, 2)}
        self.en_convs = nn.ModuleList(
            [
                ConvBlock(nn.Conv2d(9, CHANNELS, **shape), nn.PReLU()),
                ConvBlock(nn.Conv2d(CHANNELS, CHANNELS, groups=2, **shape), nn.PReLU()),
                *(GTConvBlock(dilation, transposed=False) for dilation in DILATIONS),
            ]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps (B, 9, T, 129) to the outputs of all five layers, (B, 16, T, 65) and four times (B, 16, T, 33)."""
        outputs = []
        for layer in self.en_convs:
            x = layer(x)
            outputs.append(x)
        return outputs


class Decoder(nn.Module):
    """The encoder in mirror image; the input of each layer is added to the output of its counterpart."""

    def __init__(self) -> None:
        super().__init__()
        shape = {"kernel_size": (1, 5), "stride": (1, 2), "padding": (0, 2)}
        self.de_convs = nn.ModuleList(
            [
                *(GTConvBlock(dilation, transposed=True) for dilation in reversed(DILATIONS)),
                ConvBlock(nn.ConvTranspose2d(CHANNELS, CHANNELS, groups=2, **shape), nn.PReLU()),
                ConvBlock(nn.ConvTranspose2d(CHANNELS, 2, **shape), nn.Tanh()),
            ]
        )

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """Maps (B, 16, T, 33) and the encoder's outputs to the mask's bands (B, 2, T, 129)."""
        for layer, skip in zip(self.de_convs, reversed(skips), strict=True):
            x = layer(x + skip)
        return x


class GTCRN(nn.Module):
    """The offline network: enhances all frames of a recording at once, causal in time."""

    def __init__(self) -> None:
        super().__init__()
        self.erb = ERB()
        self.encoder = Encoder()
        self.dpgrnn1 = DPGRNN()
        self.dpgrnn2 = DPGRNN()
        self.decoder = Decoder()

    def forward(self, spec: Tensor) -> Tensor:
        """Enhances a noisy spectrum.

        Args:
            spec: Noisy complex spectrum, (B, 257, T, 2).

        Returns:
            Enhanced complex spectrum, (B, 257, T, 2).
        """
        bands = self.erb.compress(spectrum_features(spec))
        skips = self.encoder(unfold_bands(bands))
        x, _ = self.dpgrnn1(skips[-1])
        x, _ = self.dpgrnn2(x)
        return apply_mask(spec, self.erb.expand(self.decoder(x, skips)))
