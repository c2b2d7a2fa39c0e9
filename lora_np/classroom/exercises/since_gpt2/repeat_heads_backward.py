"""Sharing keys, backward.

Forward, each of the `K` heads of `k` was read by `G` query heads, side by side: query head `h` read head `h // G`. `dy`
has a gradient for every one of the `K · G` readers. Give the gradient of `k`.

**Predict:** in lesson 06, what came back to a row of the embedding table whose token occurs three times? And for `G` =
1, what is `dk` here?
"""

POINTS = 2
OUTPUTS = ("dk",)
HINTS = {"dk": "A key head reaches the loss by G ways. What becomes of the gradients that come back along them?"}
FORMULA = "dk[:, j] = Σ dy[:, h] over the G heads with h // G = j"


def repeat_heads_backward(dy, G):
    """dy (N, K · G, T, D), G a whole number -> dk (N, K, T, D)."""
    N, H, T, D = dy.shape
    groups = dy.reshape(N, H // G, G, T, D)  # the readers of one head side by side
    return groups.sum(axis=2)
    # As in the embedding table, what comes back is added up. For G = 1 dk is dy.


def draw(rng, size):
    return {"dy": rng.normal(size=(size.N, size.H * size.B, size.T, size.D)), "G": size.B}


def every_kth(i):
    N, H, T, D = i.dy.shape
    return i.dy.reshape(N, i.G, H // i.G, T, D).sum(axis=1)


MISTAKES = {
    "dk": [
        ("heads h with the same h % K are added up, not those with the same h // G", every_kth),
        ("only the first reader of each head is there", lambda i: i.dy[:, :: i.G]),
    ]
}
