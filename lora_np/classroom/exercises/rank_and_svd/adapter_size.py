"""Warm-up: how many numbers?

LoRA stores a change of `W` (out, in) as two thin factors, `B` (out, r) and `A` (r, in). How many numbers is that?

**Predict first:** for out = in = 4096 and r = 8, what share of `W`'s numbers is it: a tenth, a hundredth, less? And if
the layer becomes twice as wide and twice as high, what happens to that share? Large models are where LoRA saves most.
"""

POINTS = 1
OUTPUTS = ("count",)
HINTS = {"count": "Which shape does B have, and which does A? How many numbers are in each?"}
FORMULA = "count = r · (out + in):  out · r numbers in B, r · in in A"


def adapter_size(n_out, n_in, r):
    """The sizes, three whole numbers -> count, a whole number."""
    size_of_B, size_of_A = n_out * r, r * n_in
    return size_of_B + size_of_A  # r (out + in)
    # 8 · 8192 = 65,536 of 16,777,216: one in 256. At twice the size W has four times as many numbers, and the factors
    # twice as many: one in 512.


def draw(rng, size):
    return {"n_out": 10 * size.n_out, "n_in": 10 * size.n_in, "r": size.r + 2 * size.number}


MISTAKES = {
    "count": [
        ("this counts the full matrix", lambda i: i.n_out * i.n_in),
        ("out, in and r are multiplied", lambda i: i.n_out * i.n_in * i.r),
        ("r² is subtracted: that many numbers are redundant, but they are stored", lambda i: i.right["count"] - i.r**2),
    ]
}
