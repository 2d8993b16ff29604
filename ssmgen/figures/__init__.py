"""Drawings: of a recurrence, of measurements."""
