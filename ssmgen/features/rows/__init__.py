"""Rows: how many writes a token makes."""
