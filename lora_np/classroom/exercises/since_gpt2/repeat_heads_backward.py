"""8. Grouped-query attention, backward (2 points).

In the forward pass, each of the `K` heads of `k` is read by `G` consecutive query heads: query head `h` reads head `h
// G`. `dy` holds a gradient for each of the `K · G` query heads. Compute the gradient with respect to `k`.

**Predict:** in lesson 06, what was the gradient of a row of the embedding table whose token occurs three times? What is
`dk` for `G` = 1?
"""

HINTS = {"dk": "A key head affects the loss through G query heads. How do their gradients combine?"}
FORMULA = "dk[:, j] = Σ dy[:, h] over the G heads with h // G = j"


def repeat_heads_backward(dy, G):
    """dy (N, K · G, T, D), G an int -> dk (N, K, T, D)."""
    N, H, T, D = dy.shape
    groups = dy.reshape(N, H // G, G, T, D)  # the query heads that read the same head, along axis 2
    return groups.sum(axis=2)
    # As for a row of the embedding table, the gradients are added up. For G = 1, dk is dy.


def draw(rng, size):
    return {"dy": rng.normal(size=(size.N, size.H * size.B, size.T, size.D)), "G": size.B}


MISTAKES = {
    "heads h with the same h % K are added up, not those with the same h // G": lambda i: i.dy.reshape(
        len(i.dy), i.G, -1, *i.dy.shape[2:]
    ).sum(axis=1),
    "only the first query head of each group is counted": lambda i: i.dy[:, :: i.G],
}
