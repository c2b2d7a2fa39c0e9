"""1. Warm-up: merging (2 points).

Training is over. `merge` returns the single matrix that replaces both the base weight and the adapter: for every `x`,
`x W_mergedᵀ` is the adapted layer's output.
"""

HINTS = {"W_merged": "Which single matrix maps every x to the sum of the outputs of the layer's two paths?"}
FORMULA = "W_merged = W + s B A"


def merge(W, A, B, s):
    """W (out, in), A (r, in), B (out, r), s a float -> W_merged (out, in)."""
    return W + s * B @ A


def draw(rng, size):
    return size.normals(rng, W="n_out n_in", A="r n_in", B="n_out r") | {"s": size.s}


MISTAKES = {"W is multiplied by 1 − s, but all of W remains": ("W + s", "(1 - s) * W + s")}
