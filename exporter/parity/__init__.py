"""Parity: cases, measuring an artifact against the float64 reference, and the verdict.

``cases`` plans what is run, ``measure`` compares tensors (pure), ``ladder`` holds the rungs, ``usual`` says what
outputs of few values are over the cases, ``judge`` turns measurements into verdicts (pure), ``worker`` runs an artifact
over the cases in a child. None of it needs PyTorch.
"""
