"""7. Converting to llama.cpp's row order (3 points).

RoPE rotates the `D` entries of a head as `D/2` points, each with two coordinates. In each head of our `q_proj`, the
rows for the first coordinates of all points come first, followed by those for the second coordinates. In llama.cpp's
file, the two coordinates of a point are neighbours: 0, D/2, 1, D/2 + 1, and so on. `B` is an adapter's factor for
`q_proj`, and its rows are in the same order as those of our weight. Return the rows in the file's order, head by head.

**On paper first:** write down the order of the rows of one head for `D` = 6 and for `D` = 4. For which of these two
values of `D` is the permutation its own inverse? (So which `D` is a poor choice for a test?) **Predict:** why does `A`
not change? Does the `B` of `v_proj` change? How many heads do you pass for `k_proj`?
"""

HINTS = {"rows": "Row j of a head is coordinate c of point k, with j = c · D/2 + k. Which row is that in the file?"}
FORMULA = "row j = c · D/2 + k of a head becomes row 2k + c:  (H, 2, D/2, r) -> (H, D/2, 2, r)"


def rows_for_llama_cpp(B, n_heads):
    """B (n_heads · D, r), n_heads an int -> rows (n_heads · D, r)."""
    halves = B.reshape(n_heads, 2, -1, B.shape[1])  # (H, 2, D/2, r): head, coordinate, point
    points = halves.swapaxes(1, 2)  # (H, D/2, 2, r): head, point, coordinate
    return points.reshape(B.shape)
    # For D = 6 the order is 0 3 1 4 2 5, and its inverse is 0 2 4 1 3 5. For D = 4 it is 0 2 1 3, which is its own
    # inverse, so a test cannot distinguish the permutation from its inverse. A reads the input, whose order does not
    # change. Values are not rotated, so v_proj keeps its rows. For k_proj, pass the number of key heads.


def draw(rng, size):
    """Draw a B for which half the head size exceeds all other dimensions."""
    n_heads, half = size.F, size.N + 9
    return {"B": rng.normal(size=(n_heads * 2 * half, size.r)), "n_heads": n_heads}


MISTAKES = {
    "this is the inverse, from the file's order to ours": ("2, -1, B", "-1, 2, B"),
    "all rows are treated as one head": lambda i: i.solve(n_heads=1),
}
