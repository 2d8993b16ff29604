"""Current token: whether the output sees the token's own write."""
