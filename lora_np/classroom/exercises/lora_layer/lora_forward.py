"""2. Forward (3 points).

Compute the adapted layer's output as in training, before merging. Do not form `ΔW`, which is as large as `W`: on the
adapter's path, reduce each row of `x` to `r` numbers first. (The check tests only the result.) **Count beforehand:**
how many multiplications does one row take on the adapter's path, and how many would it take with `ΔW`?
"""

HINTS = {"y": "There are two paths from x to y. Which of them is scaled by s?"}
FORMULA = "y = x Wᵀ + b + s (x Aᵀ) Bᵀ"


def lora_forward(x, W, b, A, B, s):
    """x (N, in), W (out, in), b (out,), A (r, in), B (out, r), s a float -> y (N, out)."""
    u = x @ A.T  # (N, r)
    return x @ W.T + b + s * u @ B.T  # (N, out)


def draw(rng, size):
    return size.normals(rng, x="N n_in", W="n_out n_in", b="n_out", A="r n_in", B="n_out r") | {"s": size.s}


MISTAKES = {
    "the bias is added on the adapter's path as well": ("+ b + s", "+ b + s * b + s"),
    "the base's path is multiplied by 1 − s": ("x @ W.T + b", "(1 - s) * (x @ W.T + b)"),
}
