"""Rotation: whether the transition turns pairs of keys, or the state is complex."""
