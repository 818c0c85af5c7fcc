"""Pictures and sound as data in a page: read back by others' code."""

from __future__ import annotations

import io
import wave
import zlib

import numpy as np
import pytest

from exporter.report.media import colours, png, sound


def read_back(data: bytes) -> np.ndarray:
    image = pytest.importorskip("PIL.Image", reason="NO PILLOW: pip install '.[images]'")
    with image.open(io.BytesIO(data)) as file:
        file.load()
        return np.asarray(file.convert("RGB"))


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 5, 3), (64, 48, 3), (6, 9, 1)])
def test_a_picture_is_read_back_to_the_bit(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.testing.assert_array_equal(read_back(png.picture(pixels)), np.broadcast_to(pixels, (*shape[:2], 3)))


def test_a_picture_of_a_palette_is_read_back_to_the_bit() -> None:
    palette = colours.palette(colours.VIRIDIS)
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(read_back(png.indexed(pixels, palette)), palette[pixels])


def test_every_chunk_has_its_sum() -> None:
    data = png.picture(np.zeros((2, 2, 3), np.uint8))
    at = len(png.SIGNATURE)
    names = []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        names.append(data[at + 4 : at + 8])
        assert int.from_bytes(data[at + 8 + size : at + 12 + size], "big") == zlib.crc32(data[at + 4 : at + 8 + size])
        at += 12 + size
    assert names == [b"IHDR", b"IDAT", b"IEND"] and png.address(data).startswith("data:image/png;base64,iVBOR")


def test_a_palette_gets_lighter_step_by_step_and_ends_in_the_gray_of_the_unknown() -> None:
    for anchors in (colours.VIRIDIS, colours.MAGMA):
        found = colours.palette(anchors)
        light = found[:-1].astype(float) @ [0.2126, 0.7152, 0.0722]
        assert found.shape == (256, 3) and (np.diff(light) >= -0.5).all() and light[-1] > light[0] + 150
        assert found[-1].tolist() == [128, 128, 128]
    numbers = colours.numbers(np.array([0.0, 1.0, 2.0, 9.0, np.nan, np.inf]), 0.0, 2.0)
    assert numbers.tolist() == [0, 127, 254, 254, 255, 255]
    assert colours.numbers(np.zeros((2, 2)), 0.0, 0.0).tolist() == [[0, 0], [0, 0]]


def test_a_sound_is_read_back_to_the_sample() -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, 1000).astype(np.int16)
    with wave.open(io.BytesIO(sound.file(samples, 16000))) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (1, 16000, 2)
        np.testing.assert_array_equal(np.frombuffer(file.readframes(1000), "<i2"), samples)


@pytest.mark.parametrize("hertz", [500, 2000, 6000])
def test_a_tone_is_the_brightest_row_of_its_spectrogram(hertz: int) -> None:
    tone = (8000 * np.sin(2 * np.pi * hertz * np.arange(32000) / 16000)).astype(np.int16)
    levels = sound.levels(tone)
    assert levels.shape[0] == sound.BINS and levels.shape[1] <= sound.WIDTH + 1
    row = int(levels.mean(axis=1).argmax())
    assert abs((sound.BINS - row) * 8000 / sound.BINS - hertz) <= 2 * 8000 / sound.BINS
    shown = read_back(sound.spectrogram(levels, float(levels.max())))
    assert shown.shape[:2] == levels.shape and shown[row].mean() > shown[(row + 60) % sound.BINS].mean() + 100


def test_the_shortest_sound_has_a_spectrogram() -> None:
    assert sound.levels(np.ones(1, np.int16)).shape == (sound.BINS, 1)
