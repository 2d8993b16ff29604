"""Lines of emitted code, broken where a reader would break them."""
