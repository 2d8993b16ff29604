"""What op.py of an emitted package says: the operator as torch operations, and what calls it."""
