"""1. Warm-up: how many parameters? (1 point).

LoRA stores a change to `W` (out, in) as two thin factors, `B` (out, r) and `A` (r, in). How many parameters do the two
factors have together?

**Predict first:** for out = in = 4096 and r = 8, what fraction of `W`'s parameters do the factors have: a tenth, a
hundredth, or less? How does it change if both out and in double? LoRA saves most in large models.
"""

HINTS = {"count": "What are the shapes of B and A? How many entries does each have?"}
FORMULA = "count = r · (out + in):  out · r for B, and r · in for A"


def adapter_size(n_out, n_in, r):
    """n_out, n_in, r ints -> count, an int."""
    size_of_B, size_of_A = n_out * r, r * n_in
    return size_of_B + size_of_A  # r (out + in)
    # 8 · 8192 = 65,536 parameters are 1/256 of W's 16,777,216. If both sides double, W has four times as many
    # parameters, and the factors have twice as many: 1/512.


def draw(rng, size):
    return {"n_out": 10 * size.n_out, "n_in": 10 * size.n_in, "r": size.r + 2 * size.number}


MISTAKES = {
    "this is the number of parameters of W": lambda i: i.n_out * i.n_in,
    "W's own parameters are counted as well": ("return size", "return n_out * n_in + size"),
    "out, in and r are multiplied": lambda i: i.n_out * i.n_in * i.r,
}
