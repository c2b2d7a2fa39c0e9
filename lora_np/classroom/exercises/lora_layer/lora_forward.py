"""Forward.

Compute the output of the adapted layer in training. Do not form `ΔW`, which is as large as `W`: a row of `x` passes
through only `r` numbers. (The check sees only the result.) **Count first:** how many multiplications does a row cost on
the adapter's path, and how many with `ΔW`?
"""

from ...exercise import normals

POINTS = 3
OUTPUTS = ("y",)
HINTS = {"y": "There are two paths from x to y. On which of them is s?"}
FORMULA = "y = x Wᵀ + b + s (x Aᵀ) Bᵀ"


def lora_forward(x, W, b, A, B, s):
    """x (N, in), W (out, in), b (out,), A (r, in), B (out, r), s a float -> y (N, out)."""
    u = x @ A.T  # (N, r)
    return x @ W.T + b + s * u @ B.T  # (N, out)


def draw(rng, size):
    drawn = normals(rng, size, x="N n_in", W="n_out n_in", b="n_out", A="r n_in", B="n_out r")
    return drawn | {"s": size.alpha / size.r}  # B is not zero and s is not 1, as in the middle of training
