"""Recordings and tensors in and out."""

from __future__ import annotations

import json
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from exporter.errors import Incomplete, Refused
from exporter.host import files

Image = pytest.importorskip("PIL.Image")


def recording(path: Path, samples: np.ndarray, rate: int = 16000, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


def test_a_recording_comes_back_as_it_was(tmp_path: Path) -> None:
    samples = np.arange(-32768, 32768, 7, dtype="<i2")
    values = files.read(recording(tmp_path / "a.wav", samples, 8000))
    assert int(values["sample_rate"]) == 8000
    files.write(tmp_path / "b.wav", values)
    assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "a.wav").read_bytes()


def test_samples_are_rounded_down_and_clipped_as_libsndfile_does(tmp_path: Path) -> None:
    audio = np.array([0.0, 0.6 / 32768, -0.4 / 32768, 1.5, -1.5], np.float32)
    files.write(tmp_path / "a.wav", {"audio": audio, "sample_rate": np.array(16000)})
    found = files.read(tmp_path / "a.wav")["audio"] * 32768
    assert found.tolist() == [0, 0, -1, 32767, -32768]


@pytest.mark.parametrize("kept", [10, 44, 45, 60, 61])
def test_a_recording_that_is_cut_is_refused(tmp_path: Path, kept: int) -> None:
    path = recording(tmp_path / "a.wav", np.zeros(100, "<i2"))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(Refused) as caught:
        files.read(path)
    assert caught.value.code == "bad-sample"


def test_two_channels_and_other_widths_are_refused(tmp_path: Path) -> None:
    for path in (
        recording(tmp_path / "stereo.wav", np.zeros(100, "<i2"), channels=2),
        recording(tmp_path / "wide.wav", np.zeros(100, "<i4"), width=4),
    ):
        with pytest.raises(Refused, match=path.name):
            files.read(path)


def test_an_output_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.pfm").write_bytes(b"older")
    with pytest.raises(Refused):
        files.write(tmp_path / "a.pfm", {"disparity": np.zeros((1, 2, 3))})
    assert (tmp_path / "a.pfm").read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == ["a.pfm"]


# ----------------------------------------------------------------------------------------------- pictures and maps


def picture(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    ("ending", "shape"), [(".png", (5, 7, 3)), (".ppm", (5, 7, 3)), (".pgm", (5, 7)), (".png", (5, 7))]
)
def test_a_picture_is_read_as_it_is(tmp_path: Path, ending: str, shape: tuple[int, ...]) -> None:
    wanted = picture(shape)
    Image.fromarray(wanted).save(tmp_path / f"a{ending}")
    found = files.read(tmp_path / f"a{ending}")
    assert list(found) == ["image"] and found["image"].dtype == np.uint8
    np.testing.assert_array_equal(found["image"], wanted)


def test_a_picture_stands_as_its_camera_was_held(tmp_path: Path) -> None:
    wanted = np.repeat(np.repeat(picture((3, 4, 3)), 8, 0), 8, 1)
    turned = Image.fromarray(wanted).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # the viewer turns it clockwise
    turned.save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    assert files.read(tmp_path / "a.jpg")["image"].shape == wanted.shape


def test_colours_of_a_palette_and_an_opaque_alpha_are_read(tmp_path: Path) -> None:
    wanted = np.repeat(picture((2, 3, 3)), 2, 0)
    Image.fromarray(wanted).convert("P", palette=Image.Palette.ADAPTIVE, colors=6).save(tmp_path / "p.png")
    Image.fromarray(wanted).convert("RGBA").save(tmp_path / "a.png")
    for name in ("p.png", "a.png"):
        np.testing.assert_array_equal(files.read(tmp_path / name)["image"], wanted)


def test_what_would_be_converted_in_silence_is_refused(tmp_path: Path) -> None:
    clear = np.dstack([picture((4, 4, 3)), picture((4, 4))])
    Image.fromarray(clear, "RGBA").save(tmp_path / "clear.png")
    Image.fromarray(picture((4, 4)).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(clear, "CMYK").save(tmp_path / "print.jpg")
    (tmp_path / "text.png").write_bytes(b"no picture")
    Image.fromarray(picture((64, 64, 3))).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:900])
    for name in ("clear.png", "deep.png", "print.jpg", "text.png", "cut.png"):
        with pytest.raises(Refused, match=name) as caught:
            files.read(tmp_path / name)
        assert caught.value.code == "bad-sample"


def test_a_folder_of_pictures_is_one_input(tmp_path: Path) -> None:
    left, right = picture((4, 5, 3)), picture((4, 5, 3), seed=1)
    Image.fromarray(left).save(tmp_path / "left.png")
    assert not files.is_one_input(tmp_path, ["left", "right"])
    Image.fromarray(right).save(tmp_path / "right.png")
    (tmp_path / "notes.txt").write_text("taken by hand")
    assert files.is_one_input(tmp_path, ["left", "right"]) and not files.is_one_input(tmp_path, [])
    assert not files.is_one_input(tmp_path / "left.png", ["left"])
    found = files.read(tmp_path)
    assert sorted(found) == ["left", "right"]
    np.testing.assert_array_equal(found["left"], left)
    np.testing.assert_array_equal(found["right"], right)
    Image.fromarray(right).save(tmp_path / "right.ppm")
    with pytest.raises(Refused, match="one name"):
        files.read(tmp_path)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="without pictures"):
        files.read(tmp_path)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_written_rounded_and_clipped(tmp_path: Path, channels: int) -> None:
    wanted = picture((6, 5, 3) if channels == 3 else (6, 5))
    planes = wanted.transpose(2, 0, 1)[None] if channels == 3 else wanted[None, None]
    for off in (0.4, -0.4):
        tensor = planes.astype(np.float32) / 255 + np.float32(off / 255)
        files.write(tmp_path / "a.png", {"image": np.where(planes == 255, np.float32(7), tensor)})
        np.testing.assert_array_equal(files.read(tmp_path / "a.png")["image"], wanted)


@pytest.mark.parametrize("image", [np.zeros((2, 3, 4, 4)), np.zeros((1, 2, 4, 4)), np.full((1, 3, 4, 4), np.nan)])
def test_an_image_that_no_picture_holds_is_refused(tmp_path: Path, image: np.ndarray) -> None:
    with pytest.raises(Refused, match="image"):
        files.write(tmp_path / "a.png", {"image": image})
    assert not list(tmp_path.iterdir())


def test_a_disparity_map_comes_back_as_it_was(tmp_path: Path) -> None:
    wanted = np.random.default_rng(0).uniform(0, 60, (4, 7)).astype(np.float32)
    wanted[1, 2] = np.inf
    files.write(tmp_path / "a.pfm", {"disparity": wanted})
    assert (tmp_path / "a.pfm").read_bytes().startswith(b"Pf\n7 4\n-1.0\n")
    np.testing.assert_array_equal(files.read(tmp_path / "a.pfm")["disparity"], wanted)
    bottom = np.frombuffer((tmp_path / "a.pfm").read_bytes()[-4 * 28 :][: 4 * 7], "<f4")
    np.testing.assert_array_equal(bottom, wanted[-1])  # rows go from the bottom up


def test_a_map_of_the_other_byte_order_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.pfm").write_bytes(b"Pf\n2 1\n1.0\n" + np.array([1.5, 2.5], ">f4").tobytes())
    assert files.read(tmp_path / "a.pfm")["disparity"].tolist() == [[1.5, 2.5]]


@pytest.mark.parametrize(
    "content", [b"", b"Pf\n2 2\n-1.0\n1234", b"PF\n1 1\n-1.0\n" + bytes(12), b"PF\n1 1\n-1.0\n1234"]
)
def test_a_map_that_is_cut_or_coloured_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pfm").write_bytes(content)
    with pytest.raises(Refused, match="portable float map"):
        files.read(tmp_path / "a.pfm")


def test_a_disparity_picture_has_256_steps_per_pixel_and_0_for_unknown(tmp_path: Path) -> None:
    files.write(tmp_path / "a.png", {"disparity": np.array([[1.0, 2.5, np.nan], [np.inf, 300.0, 0.001]])})
    found = np.array(Image.open(tmp_path / "a.png"))
    assert found.tolist() == [[256, 640, 0], [0, 65535, 0]]


def test_scores_are_written_as_json(tmp_path: Path) -> None:
    files.write(tmp_path / "a.json", {"score": np.array([0.5, 0.25], np.float32)})
    assert json.loads((tmp_path / "a.json").read_text()) == {"score": [0.5, 0.25]}
    with pytest.raises(Refused, match="score is"):
        files.write(tmp_path / "a.json", {"score": np.array([np.nan])})


def test_records_are_not_written_beside_the_values(tmp_path: Path) -> None:
    files.write(tmp_path / "a.npz", {"y": np.ones(2), "x.size": np.zeros(4), "x.tiles": np.zeros(4)})
    assert list(files.read(tmp_path / "a.npz")) == ["y"]


@pytest.mark.parametrize(
    ("names", "endings"),
    [
        (["audio", "sample_rate"], [".wav", ".npz"]),
        (["image"], [".png", ".npz"]),
        (["disparity"], [".pfm", ".png", ".npz"]),
        (["score"], [".json", ".npz"]),
        (["image", "disparity"], [".png", ".pfm", ".npz"]),
        (["logits"], [".npz"]),
        ([], [".npz"]),
    ],
)
def test_what_is_writable_is_known_before_and_holds_after(tmp_path: Path, names: list[str], endings: list[str]) -> None:
    assert files.writable(names) == endings
    values = {
        "audio": np.zeros(4), "sample_rate": np.array(16000), "image": np.zeros((1, 3, 2, 2)),
        "disparity": np.ones((2, 2)), "score": np.ones(1), "logits": np.ones(3),
    }  # fmt: skip
    for ending in files.WRITERS:
        output = tmp_path / f"a{ending}"
        if ending in endings:
            files.write(output, {name: values[name] for name in names})
            assert output.is_file()
        else:
            with pytest.raises(Refused) as caught:
                files.write(output, {name: values[name] for name in names})
            assert caught.value.code == "bad-output"


def test_without_pillow_the_message_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(picture((4, 4))).save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    for attempt in (
        lambda: files.read(tmp_path / "a.png"),
        lambda: files.write(tmp_path / "b.png", {"image": picture((4, 4))}),
    ):
        with pytest.raises(Incomplete, match="Pillow") as caught:
            attempt()
        assert caught.value.code == "runtime-absent" and caught.value.next == "pip install '.[images]'"
