"""What a text costs in memory.

A model that writes keeps the keys and the values of all tokens so far, in every layer. Count the bytes for a text of
`T` tokens, once if each of the `n_heads` query heads had keys and values of its own (`full`), and once with the
`n_kv_heads` that there are (`grouped`). A number has `itemsize` bytes.

**Predict:** on which of the six numbers does `grouped` not depend? By which factor does it save? **And when it is
right,** put in SmolLM2's: 30 layers, 9 and 3 heads of 64 numbers, 8,192 tokens, 4 bytes. Its weights take 538 MB.
"""

POINTS = 2
OUTPUTS = ("full", "grouped")
HINTS = {
    "full": "How many numbers does one token keep, in one layer, for one head? There are two kinds of them.",
    "grouped": "Which heads keep something: those of the queries, or those of the keys and values?",
}
FORMULA = "full = 2 · n_layers · T · n_heads · head_size · itemsize;  grouped: with n_kv_heads"


def cache_bytes(n_layers, n_heads, n_kv_heads, head_size, T, itemsize):
    """Whole numbers -> full, grouped, in bytes."""
    of_one_head = 2 * n_layers * T * head_size * itemsize  # its keys and its values
    full = of_one_head * n_heads
    grouped = of_one_head * n_kv_heads
    return full, grouped
    # Not on n_heads: it saves by G = n_heads / n_kv_heads. SmolLM2: 1,132 MB and 377 MB.


def draw(rng, size):
    sizes = {"n_layers": size.N + 15, "n_heads": size.H * size.B, "n_kv_heads": size.H, "head_size": 8 * size.D}
    return sizes | {"T": 100 * size.T, "itemsize": (4, 2, 8)[size.number]}


MISTAKES = {
    "full": [
        ("the queries are kept as well, but nothing reads an old query again", lambda i: i.right["full"] * 3 // 2),
    ],
}
