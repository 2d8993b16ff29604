"""Linear attention by fla-core: chunk_linear_attn without its normaliser; reads are scaled by N^-1/2 there, too."""

NAME = "fla-core chunk_linear_attn"
REQUIRES = ("fla.ops.linear_attn",)


def run(inputs, sizes):
    from fla.ops.linear_attn import chunk_linear_attn

    return chunk_linear_attn(inputs["q"], inputs["k"], inputs["v"], normalize=False)[0]
