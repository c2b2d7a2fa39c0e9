"""9. The memory of the key-value cache (2 points).

When a model generates text, it caches the keys and values of all tokens so far, in every layer. Count the bytes for a
text of `T` tokens in two cases: each of the `n_heads` query heads has its own keys and values (`full`), or there are
only `n_kv_heads` key and value heads (`grouped`). Each number takes `itemsize` bytes.

**Predict:** which of the six arguments does `grouped` not depend on? By what factor is `grouped` smaller than `full`?
**When your code passes,** compute both for SmolLM2: 30 layers, 9 query heads, 3 key and value heads, head size 64,
8,192 tokens, and 4 bytes per number. (Its weights take 538 MB.)
"""

HINTS = {
    "full": "How many numbers are cached per token, layer and head? Which two vectors does the cache contain?",
    "grouped": "Which heads are cached: the query heads, or the key and value heads?",
}
FORMULA = "full = 2 · n_layers · T · n_heads · head_size · itemsize;  grouped: n_kv_heads instead of n_heads"


def cache_bytes(n_layers, n_heads, n_kv_heads, head_size, T, itemsize):
    """All arguments ints -> full, grouped, in bytes."""
    of_one_head = 2 * n_layers * T * head_size * itemsize  # its keys and its values
    full = of_one_head * n_heads
    grouped = of_one_head * n_kv_heads
    return full, grouped
    # `grouped` does not depend on n_heads, and is smaller than `full` by a factor of G = n_heads / n_kv_heads. For
    # SmolLM2, `grouped` is 377 MB and `full` is 1,132 MB.


def draw(rng, size):
    sizes = {"n_layers": size.N + 15, "n_heads": size.H * size.B, "n_kv_heads": size.H, "head_size": 8 * size.D}
    return sizes | {"T": 100 * size.T, "itemsize": (4, 2, 8)[size.number]}


MISTAKES = {
    "only the keys or only the values are shared": ("_head * n_kv_heads", "_head * (n_heads + n_kv_heads) // 2"),
    "the queries are cached as well, but old queries are never read again": lambda i: i.right["full"] * 3 // 2,
}
