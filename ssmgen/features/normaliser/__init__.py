"""Normaliser: whether the output is divided by a read of its own weights."""
