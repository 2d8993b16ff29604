"""What runs rather than compiles: the only part of ssmgen that may import torch or triton, and then inside functions."""
