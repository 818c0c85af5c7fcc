"""Pictures to tensors."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.errors import Refused
from exporter.host import images

RNG = np.random.default_rng(0)


def test_a_picture_becomes_a_tensor_of_its_colours() -> None:
    picture = RNG.integers(0, 256, (4, 6, 3), np.uint8)
    found = images.image({"image": picture}, result="left", high=255.0)["left"]
    assert found.shape == (1, 3, 4, 6) and found.dtype == np.float32
    assert found[0, 1, 2, 5] == picture[2, 5, 1]
    scaled = images.image({"image": picture}, result="left")["left"]
    np.testing.assert_allclose(scaled, found / 255, rtol=1e-6)


def test_the_picture_of_the_inputs_own_name_comes_first() -> None:
    values = {"left": np.full((2, 2), 9, np.uint8), "image": np.zeros((2, 2), np.uint8)}
    assert images.image(values, result="left", high=255.0)["left"].max() == 9


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1)])
def test_gray_becomes_as_many_equal_channels_as_the_model_takes(shape: tuple[int, ...]) -> None:
    picture = RNG.integers(0, 256, shape, np.uint8)
    for channels in (1, 3):
        found = images.image({"image": picture}, result="x", channels=channels, high=255.0)["x"]
        assert found.shape == (1, channels, 3, 5)
        assert all(np.array_equal(plane, picture.reshape(3, 5)) for plane in found[0])


def test_a_tensor_is_taken_as_it_is() -> None:
    tensor = RNG.uniform(-1, 1, (1, 3, 2, 4))
    found = images.image({"x": tensor}, result="x", high=255.0)["x"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, tensor.astype(np.float32))


@pytest.mark.parametrize(
    ("picture", "channels"),
    [
        (np.zeros((4, 4, 3), np.uint8), 1),
        (np.zeros((4, 4, 4), np.uint8), 3),
        (np.zeros((4, 4, 3), np.uint16), 3),
        (np.zeros((4, 4, 3), np.float32), 3),
        (np.zeros((2, 3, 4, 4), np.float32), 3),
        (np.zeros((0, 4, 3), np.uint8), 3),
    ],
)
def test_another_kind_of_picture_is_refused(picture: np.ndarray, channels: int) -> None:
    with pytest.raises(Refused) as caught:
        images.image({"image": picture}, result="x", channels=channels)
    assert caught.value.code == "bad-sample"


def test_a_missing_picture_names_what_there_is() -> None:
    with pytest.raises(Refused, match="nearest: imago"):
        images.image({"imago": np.zeros((2, 2), np.uint8)}, result="x")


def test_normalise_is_per_channel() -> None:
    value = RNG.uniform(0, 1, (2, 3, 4, 5)).astype(np.float32)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    found = images.normalise({"x": value}, of=["x"], mean=mean, std=std)["x"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 1], (value[:, 1] - 0.456) / 0.224, rtol=1e-5)
    for options in ({"mean": mean, "std": std[:2]}, {"mean": mean, "std": [1, 0, 1]}):
        with pytest.raises(Refused):
            images.normalise({"x": value}, of="x", **options)
    with pytest.raises(Refused, match="shape"):
        images.normalise({"x": value[:, :1]}, of="x", mean=mean, std=std)


def test_clamp_cuts_and_names() -> None:
    value = np.array([-1.0, 0.5, 2.0], np.float32)
    assert images.clamp({"y": value}, of="y")["y"].tolist() == [0.0, 0.5, 1.0]
    assert images.clamp({"y": value}, of=["y"], low=-0.5, high=255.0, result="image")["image"].tolist() == [
        -0.5,
        0.5,
        2.0,
    ]
    with pytest.raises(Refused):
        images.clamp({"y": value, "z": value}, of=["y", "z"], result="image")


SIZES = [
    ((32, 48), (8, 12)),
    ((31, 47), (10, 9)),
    ((8, 8), (20, 13)),
    ((16, 5), (7, 15)),
    ((9, 9), (9, 9)),
    ((1, 4), (3, 1)),
]


@pytest.mark.parametrize(("size", "wanted"), SIZES)
def test_resize_is_that_of_pytorch(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    value = RNG.uniform(0, 1, (2, 3, *size)).astype(np.float32)
    found = images.resize({"x": value}, of="x", height=wanted[0], width=wanted[1])["x"]
    torched = torch.nn.functional.interpolate(torch.from_numpy(value), wanted, mode="bilinear", antialias=True)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, torched.numpy(), atol=2e-6)


@pytest.mark.parametrize(("size", "wanted"), SIZES)
def test_resize_is_that_of_pillow(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image")
    value = RNG.uniform(0, 1, size).astype(np.float32)
    found = images.resize({"x": value}, of="x", height=wanted[0], width=wanted[1])["x"]
    pillow = np.array(image.fromarray(value).resize(wanted[::-1], image.Resampling.BILINEAR))
    np.testing.assert_allclose(found, pillow, atol=2e-6)


def test_resize_to_nothing_is_refused() -> None:
    with pytest.raises(Refused, match="0"):
        images.resize({"x": np.zeros((1, 1, 4, 4))}, of="x", height=0, width=4)
