"""ONNX's own node tests through our targets: ``python -m tests.backend``."""
