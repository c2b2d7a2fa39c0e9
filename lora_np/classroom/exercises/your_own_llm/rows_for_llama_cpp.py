"""Off to llama.cpp.

RoPE turns the `D` numbers of a head as `D/2` points, each with two coordinates. In each head of our `q_proj`, the rows
of all first coordinates come first, and those of all second ones after them. In llama.cpp's file, the two coordinates
of a point are neighbours: 0, D/2, 1, D/2 + 1, and so on. `B` is an adapter's factor for `q_proj`, and its rows are
those of the weight. Give them in the file's order, head by head.

**On paper first:** write the order of the six rows of one head with `D` = 6. And of the four with `D` = 4. For which of
the two does the way back look like the way there? (So which `D` is a poor test?) **Predict:** why does `A` stay as it
is? Does the `B` of `v_proj` change? And which number of heads do you give for `k_proj`?
"""

POINTS = 3
OUTPUTS = ("rows",)
HINTS = {"rows": "Row j of a head is coordinate c of point k, with j = c · D/2 + k. Which row is that in the file?"}
FORMULA = "row j = c · D/2 + k of a head becomes row 2k + c:  (H, 2, D/2, r) -> (H, D/2, 2, r)"


def rows_for_llama_cpp(B, n_heads):
    """B (n_heads · D, r), n_heads a whole number -> rows (n_heads · D, r)."""
    halves = B.reshape(n_heads, 2, -1, B.shape[1])  # (H, 2, D/2, r): head, coordinate, point
    points = halves.swapaxes(1, 2)  # (H, D/2, 2, r): head, point, coordinate
    return points.reshape(B.shape)
    # D = 6: 0 3 1 4 2 5, and the way back is 0 2 4 1 3 5. D = 4: 0 2 1 3, and so is the way back: a test with it cannot
    # tell them apart. A reads the input, which keeps its order. Values are not turned, so v_proj keeps its rows. k_proj
    # has as many heads as there are of keys.


def draw(rng, size):
    """Half a head is longer than any other axis."""
    n_heads, half = size.F, size.N + 9
    return {"B": rng.normal(size=(n_heads * 2 * half, size.r)), "n_heads": n_heads}


def way_back(i):
    return i.B.reshape(i.n_heads, -1, 2, i.B.shape[1]).swapaxes(1, 2).reshape(i.B.shape)


MISTAKES = {
    "rows": [
        ("it is the way back, from the file's order to ours", way_back),
        ("all rows are taken for one head", lambda i: rows_for_llama_cpp(i.B, 1)),
    ]
}
