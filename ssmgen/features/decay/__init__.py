"""Decay: how the state forgets by itself."""
