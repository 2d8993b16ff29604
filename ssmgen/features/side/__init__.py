"""Side: whether queries contract the key axis or the value axis of the state."""
