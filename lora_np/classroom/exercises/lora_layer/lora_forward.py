"""Forward.

The adapted layer in training. Do without `ΔW`, which is as large as `W`: a row of `x` passes through `r` numbers. (The
check sees only the result.) **Count first:** how many products does a row cost on the adapter's path, and how many with
`ΔW`?
"""

from ...exercise import normals

POINTS = 3
OUTPUTS = ("y",)
HINTS = {"y": "Two paths lead from x to y. One number is on only one of them."}
FORMULA = "y = x Wᵀ + b + s (x Aᵀ) Bᵀ"


def lora_forward(x, W, b, A, B, s):
    """x (N, in), W (out, in), b (out,), A (r, in), B (out, r), s a number -> y (N, out)."""
    u = x @ A.T  # (N, r)
    return x @ W.T + b + s * u @ B.T  # (N, out)


def draw(rng, size):
    drawn = normals(rng, size, x="N n_in", W="n_out n_in", b="n_out", A="r n_in", B="n_out r")
    return drawn | {"s": size.alpha / size.r}  # B is not zero, and the scale is not 1: the middle of training
