"""Taps: whether the previous token's write comes back."""
