"""The parts of the TensorRT target, one concern per file; :mod:`targets.tensorrt` puts them together."""
