"""Time: the direction of the walk."""
