"""Warm-up: the weight that needs no adapter.

Training is over. `merge` gives the one matrix that does what the base weight and the adapter do together: for every
`x`, `x W_mergedᵀ` is the adapted layer's output.
"""

from ...exercise import normals

POINTS = 2
OUTPUTS = ("W_merged",)
HINTS = {"W_merged": "Which single matrix does to every x what the two paths of the layer do together?"}
FORMULA = "W_merged = W + s B A"


def merge(W, A, B, s):
    """W (out, in), A (r, in), B (out, r), s a number -> W_merged (out, in)."""
    return W + s * B @ A


def draw(rng, size):
    drawn = normals(rng, size, W="n_out n_in", A="r n_in", B="n_out r")
    return drawn | {"s": size.alpha / size.r}  # B is not zero, and the scale is not 1: the middle of training
