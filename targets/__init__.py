"""Targets: a file here is registered by existing."""
