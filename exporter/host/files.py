"""Real inputs and outputs as files: WAV recordings, ``.npz`` and ``.safetensors`` tensors."""

from __future__ import annotations

import wave
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporter.errors import Refused

Values = dict[str, NDArray[np.generic]]
FULL_SCALE = 32768.0


def read(path: Path) -> Values:
    """Named arrays of a file: ``audio`` and ``sample_rate`` of a recording, or the tensors of an archive.

    Raises:
        Refused: ``missing-file`` or ``bad-sample``.
    """
    if not path.is_file():
        raise Refused(
            "missing-file",
            f"there is no file {path}",
            why="a real input is read from a .wav, .npz or .safetensors file",
            next=f"ls {path.parent}",
        )
    if path.suffix not in READERS:
        raise _unreadable(path, f"its name ends in {path.suffix or 'nothing'}")
    return READERS[path.suffix](path)


def write(path: Path, values: Values) -> None:
    """Writes ``audio`` as 16-bit WAV, or all arrays as ``.npz``; through a neighbour file and one rename.

    Raises:
        Refused: ``bad-output`` for another ending, or a folder that does not exist.
    """
    if path.suffix not in (".wav", ".npz") or not path.parent.is_dir():
        raise Refused(
            "bad-output",
            f"cannot write {path}",
            why="an output is a .wav or .npz file in a folder that exists",
            next="-o OUTPUT.wav or -o OUTPUT.npz",
        )
    staging = path.with_name(f".{path.name}.part")
    try:
        with staging.open("wb") as file:
            if path.suffix == ".wav":
                _write_wav(file, values)
            else:
                np.savez(file, **values)  # type: ignore[arg-type]
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


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


def _write_wav(file: object, values: Values) -> None:
    # Rounded down, as libsndfile 1.2.2 does: the file equals, sample for sample, the one that it writes of this signal.
    samples = np.clip(np.floor(values["audio"].astype(np.float64) * FULL_SCALE), -32768, 32767).astype("<i2")
    with wave.open(file, "wb") as out:  # type: ignore[call-overload]
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(int(values["sample_rate"]))
        out.writeframes(samples.tobytes())


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


READERS = {".wav": _read_wav, ".npz": _read_npz, ".safetensors": _read_safetensors}


def _unreadable(path: Path, reason: str) -> Refused:
    return Refused(
        "bad-sample",
        f"{path.name} cannot be read: {reason}",
        where=f"file {path}",
        why="real inputs are 16-bit mono WAV, or named arrays in .npz or .safetensors",
        next="sox INPUT -b 16 -c 1 OUTPUT.wav, or numpy.savez(FILE, NAME=ARRAY)",
    )
