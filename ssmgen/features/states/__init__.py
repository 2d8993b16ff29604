"""States: one, several side by side, or several that feed each other."""
