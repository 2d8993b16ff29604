"""Form: the algorithm that the structure admits."""
