"""Correction: whether a token erases along a key before, or while, it writes."""
