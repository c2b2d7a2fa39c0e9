"""7. Grouped-query attention (1 point).

There are `K` key heads (or value heads), and `G` times as many query heads. The first `G` query heads read key head 0,
the next `G` read key head 1, and so on. Give each query head its own copy of its key head: return an array with `K · G`
heads, in which head `h` is a copy of the key head that query head `h` reads.

**On paper first:** let `K` = 2 and `G` = 3. Which key head does each of the six query heads read? Write the rule for
query head `h` with `//`. What would a rule with `%` give?
"""

import numpy as np

HINTS = {"k_heads": "Which NumPy function repeats each head G times before the next head?"}
FORMULA = "k_heads[:, h] = k[:, h // G];  np.repeat(k, G, axis=1)"


def repeat_heads(k, G):
    """k (N, K, T, D), G an int -> k_heads (N, K · G, T, D)."""
    return np.repeat(k, G, axis=1)
    # The query heads read key heads 0 0 0 1 1 1, which is h // 3. The rule h % 2 gives 0 1 0 1 0 1, like np.tile.


def draw(rng, size):
    return size.normals(rng, k="N H T D") | {"G": size.B}


MISTAKES = {"head h reads key head h % K, not h // G": lambda i: np.tile(i.k, (1, i.G, 1, 1))}
