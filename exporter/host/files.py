"""Real inputs and outputs as files: WAV recordings, pictures, disparity maps, scores, named tensors.

| ending | read as | written from |
|---|---|---|
| ``.wav`` | ``audio``, ``sample_rate`` | ``audio``, 16 bits |
| ``.png``, ``.jpg``, ``.jpeg``, ``.ppm``, ``.pgm`` | ``image``, uint8 ``(H, W, C)`` or gray ``(H, W)`` | |
| ``.png`` | | ``image``, or ``disparity`` as KITTI does: 16 bits, 256 steps per pixel, 0 for unknown |
| ``.pfm`` | ``disparity``, float32 ``(H, W)`` | ``disparity``, as the Middlebury and Scene Flow sets do |
| ``.json`` | | ``score`` |
| ``.npz`` | all its arrays | all values |
| ``.safetensors`` | all its tensors | |

A folder of pictures is one input too: each picture is named after its file (``left.png`` is ``left``).
"""

from __future__ import annotations

import json
import wave
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from exporter.errors import Incomplete, Refused
from exporter.host.values import Array, Values, is_record
from exporter.whole import whole

FULL_SCALE = 32768.0
KITTI_STEPS = 256.0
PICTURES = (".png", ".jpg", ".jpeg", ".ppm", ".pgm")


def read(path: Path) -> Values:
    """Named arrays of a file, or of a folder of pictures, as the table above says.

    Raises:
        Refused: ``missing-file`` or ``bad-sample``.
        Incomplete: ``runtime-absent`` for a picture where Pillow is not installed.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise Refused(
            "missing-file",
            f"there is no file {path}",
            why=f"a real input is read from a {_listed(READERS)} file",
            next=f"ls {path.parent}",
        )
    if path.suffix.lower() not in READERS:
        raise _unreadable(path, f"its name ends in {path.suffix or 'nothing'}")
    return READERS[path.suffix.lower()](path)


def is_one_input(path: Path, names: Iterable[str]) -> bool:
    """Whether a folder is one input, with a picture for each of the names, rather than a folder of inputs."""
    wanted = set(names)
    return path.is_dir() and bool(wanted) and wanted <= {p.stem for p in path.iterdir() if p.suffix.lower() in PICTURES}


def writable(names: Iterable[str]) -> list[str]:
    """The endings that values of these names can be written to, the natural one first; ``.npz`` takes any."""
    found = [ending for name in names for ending in ENDINGS.get(name, ())]
    return list(dict.fromkeys([*found, ".npz"]))


def write(path: Path, values: Values) -> None:
    """Writes the values as the table above says; through a neighbour file and one rename.

    Raises:
        Refused: ``bad-output`` for an ending that does not fit the values, or a folder that does not exist;
            ``bad-sample`` for a value that the kind of file cannot hold.
        Incomplete: ``runtime-absent`` for a picture where Pillow is not installed.
    """
    endings = writable(values)
    if path.suffix.lower() not in endings or not path.parent.is_dir() or path.is_dir():
        raise Refused(
            "bad-output",
            f"cannot write {path}",
            why=f"an output is a {_listed(endings)} file in a folder that exists",
            next=" or ".join(f"-o OUTPUT{ending}" for ending in endings),
        )
    with whole(path) as staging, staging.open("wb") as file:
        WRITERS[path.suffix.lower()](file, values)


# ------------------------------------------------------------------------------------------------------- recordings


def _read_wav(path: Path) -> Values:
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            if width != 2:
                raise _unreadable(path, f"it has {8 * width} bits per sample, not 16")
            frames = file.getnframes()
            samples = np.frombuffer(file.readframes(frames), "<i2").reshape(-1, channels)
    except (wave.Error, EOFError, ValueError) as error:
        raise _unreadable(path, str(error) or "it is truncated") from error
    if len(samples) != frames:
        raise _unreadable(path, f"it ends after {len(samples)} of {frames} samples")
    if channels != 1:
        raise _unreadable(path, f"it has {channels} channels, not one")
    return {"audio": (samples[:, 0] / FULL_SCALE).astype(np.float32), "sample_rate": np.array(rate)}


def _write_wav(file: BinaryIO, values: Values) -> None:
    # Rounded down, as libsndfile 1.2.2 does: the file equals, sample for sample, the one that it writes of this signal.
    samples = np.clip(np.floor(values["audio"].astype(np.float64) * FULL_SCALE), -32768, 32767).astype("<i2")
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(int(values["sample_rate"]))
        out.writeframes(samples.tobytes())


# --------------------------------------------------------------------------------------------------------- pictures


def _pillow() -> Any:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise Incomplete(
            "runtime-absent",
            "pictures need Pillow, which is not installed",
            why="Pillow reads and writes .png and .jpg",
            next="pip install '.[images]'",
        ) from error
    return Image, ImageOps


def _read_picture(path: Path) -> Values:
    return {"image": _picture(path)}


def _picture(path: Path) -> NDArray[np.uint8]:
    """uint8 ``(H, W, 3)``, or ``(H, W)`` of a gray one; turned as its camera says it was held."""
    pillow, operations = _pillow()
    try:
        with pillow.open(path) as file:
            upright = operations.exif_transpose(file)
            if upright.mode == "P":
                upright = upright.convert("RGBA" if "transparency" in upright.info else "RGB")
            if upright.mode == "RGBA" and upright.getextrema()[3][0] == 255:
                upright = upright.convert("RGB")
            if upright.mode not in ("L", "RGB"):
                raise _unreadable(path, f"its pixels are {upright.mode}, not RGB or gray of 8 bits")
            return np.array(upright)
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
        raise _unreadable(path, str(error)) from error


def _read_folder(path: Path) -> Values:
    pictures = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
    if not pictures or len({p.stem for p in pictures}) != len(pictures):
        raise _unreadable(path, "it holds two pictures of one name" if pictures else "it is a folder without pictures")
    return {p.stem: _picture(p) for p in pictures}


def _write_png(file: BinaryIO, values: Values) -> None:
    pillow, _ = _pillow()
    if "image" in values:
        picture = _as_picture(values["image"])
    else:
        steps = np.nan_to_num(_map(values) * KITTI_STEPS, nan=0.0, posinf=0.0, neginf=0.0)
        picture = np.clip(np.rint(steps), 0, 65535).astype(np.uint16)
    pillow.fromarray(picture).save(file, "PNG")


def _as_picture(value: Array) -> NDArray[np.uint8]:
    """uint8 ``(H, W, 3)`` or ``(H, W)`` of a tensor ``(1, 3 or 1, H, W)`` from 0 to 1, or of such a picture."""
    if value.dtype == np.uint8 and (value.ndim == 2 or (value.ndim == 3 and value.shape[-1] == 3)):
        return value.astype(np.uint8)
    if value.ndim != 4 or value.shape[0] != 1 or value.shape[1] not in (1, 3) or not np.isfinite(value).all():
        raise _unwritable("image", value, "one image (1, 3, H, W) or (1, 1, H, W) of finite values from 0 to 1")
    planes = np.clip(np.rint(value[0].astype(np.float64) * 255.0), 0, 255).astype(np.uint8)
    return planes[0] if len(planes) == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0))


# --------------------------------------------------------------------------------------------------- disparity maps


def _read_pfm(path: Path) -> Values:
    """Portable float map: three lines of text, then rows of float32 from the bottom up; a negative scale is
    little-endian."""
    content = path.read_bytes()
    try:
        kind, size, scale, pixels = content.split(b"\n", 3)
        columns, rows = (int(number) for number in size.split())
        values = np.frombuffer(pixels, "<f4" if float(scale) < 0 else ">f4").reshape(rows, columns)
    except ValueError as error:
        raise _unreadable(path, "it is no portable float map, or is cut") from error
    if kind.strip() != b"Pf":
        raise _unreadable(path, "it is no gray portable float map")
    return {"disparity": values[::-1].astype(np.float32)}


def _write_pfm(file: BinaryIO, values: Values) -> None:
    rows, columns = _map(values).shape
    file.write(f"Pf\n{columns} {rows}\n-1.0\n".encode("ascii"))
    file.write(_map(values)[::-1].astype("<f4").tobytes())


def _map(values: Values) -> NDArray[np.float64]:
    value = values["disparity"]
    if value.ndim != 2:
        raise _unwritable("disparity", value, "one map (H, W)")
    return value.astype(np.float64)


# ----------------------------------------------------------------------------------------------- scores and tensors


def _write_json(file: BinaryIO, values: Values) -> None:
    scores = [float(number) for number in np.ravel(values["score"])]
    if not np.isfinite(scores).all():
        raise _unwritable("score", values["score"], "finite numbers, for JSON has no others")
    file.write((json.dumps({"score": scores}, indent=2) + "\n").encode("ascii"))


def _write_npz(file: BinaryIO, values: Values) -> None:
    kept: dict[str, Any] = {name: value for name, value in values.items() if not is_record(name)}
    np.savez(file, **kept)


def _read_npz(path: Path) -> Values:
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no archive of named arrays")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path, str(error)) from error


def _read_safetensors(path: Path) -> Values:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, ValueError, OSError) as error:
        raise _unreadable(path, str(error)) from error


READERS: dict[str, Callable[[Path], Values]] = {
    ".wav": _read_wav,
    **dict.fromkeys(PICTURES, _read_picture),
    ".pfm": _read_pfm,
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
}
ENDINGS = {"audio": (".wav",), "image": (".png",), "disparity": (".pfm", ".png"), "score": (".json",)}
WRITERS: dict[str, Callable[[BinaryIO, Values], None]] = {
    ".wav": _write_wav,
    ".png": _write_png,
    ".pfm": _write_pfm,
    ".json": _write_json,
    ".npz": _write_npz,
}


def _listed(endings: Iterable[str]) -> str:
    *first, last = endings
    return f"{', '.join(first)} or {last}" if first else last


def _unreadable(path: Path, reason: str) -> Refused:
    return Refused(
        "bad-sample",
        f"{path.name} cannot be read: {reason}",
        where=f"file {path}",
        why="real inputs are 16-bit mono WAV, pictures of 8 bits, .pfm maps, or named arrays in .npz or .safetensors",
        next="sox INPUT -b 16 -c 1 OUTPUT.wav, or numpy.savez(FILE, NAME=ARRAY)",
    )


def _unwritable(name: str, value: Array, wanted: str) -> Refused:
    return Refused(
        "bad-sample",
        f"{name} is {value.dtype} {value.shape}",
        where="output file",
        why=f"such a file holds {wanted}",
        next="-o OUTPUT.npz takes any values",
    )
