"""The manifest of a bundle: typed values, and strict ways from and to bytes.

A manifest is data that its reader may not trust. Decoding refuses whatever could be read in two ways, name a file
outside the bundle, or make a reader allocate without bound. ``docs/bundle-format.md`` lists the rules; every MUST
there is a check here and has a test.
"""

from __future__ import annotations

from exporter.manifest.codec import decode, encode
from exporter.manifest.names import file_name_problem
from exporter.manifest.schema import (
    BUNDLE,
    SCHEMA,
    CalibrationInfo,
    CaseInfo,
    FileInfo,
    GraphFiles,
    Manifest,
    ModelInfo,
    PassRecord,
    TargetInfo,
    Weights,
    mentioned,
)

__all__ = [
    "BUNDLE",
    "SCHEMA",
    "CalibrationInfo",
    "CaseInfo",
    "FileInfo",
    "GraphFiles",
    "Manifest",
    "ModelInfo",
    "PassRecord",
    "TargetInfo",
    "Weights",
    "decode",
    "encode",
    "file_name_problem",
    "mentioned",
]
