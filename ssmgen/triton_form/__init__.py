"""What the Triton files of an emitted package say: walks fused or over rows, scans, what runs before them, one token."""
