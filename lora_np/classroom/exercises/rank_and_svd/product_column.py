"""3. One column of B A (2 points).

Column `j` of a weight matrix is the layer's output if input `j` is 1 and all other inputs are 0. Compute column `j` of
`B A` without forming `B A`. (The check measures the peak memory for a product of 6 million entries.)

**On paper:** write one entry of the product, `(B A)_oj`, as a sum. Which entries of `A` are in this sum for every `o`?
**Count:** for a 1000 × 1000 product and r = 10, how many multiplications does your function need for one column, and
how many would it need if it formed `B A` first? **When your code passes:** how do you compute *row* `o` of `B A`?
"""

HINTS = {"column": "(B A)_oj = Σ_k B_ok A_kj. Which entries of A does this sum contain, whatever o is?"}
FORMULA = "column j of B A = B · (column j of A)"


def product_column(B, A, j):
    """B (out, r), A (r, in), j an int from 0 to in − 1 -> column (out,)."""
    # (B A)_oj = Σ_k B_ok A_kj contains only column j of A
    return B @ A[:, j]  # (out, r) (r,) -> (out,): the columns of B, weighted by column j of A
    # This takes 10,000 multiplications, not 10,000,000. Row o is B[o] @ A: the rows of A, weighted by row o of B.


def draw(rng, size):
    r = size.r + 2 + size.number
    B, A = rng.normal(size=(3 * size.n_out, r)), rng.normal(size=(r, 3 * size.n_in))
    return {"B": B, "A": A, "j": 1 + size.number}  # small enough that B also has a column j


def large(rng, size):
    inputs = {"B": rng.normal(size=(3000, 4)), "A": rng.normal(size=(4, 2000)), "j": 2}
    return inputs, 2_400_000, "it forms B A or another array of that size"


MISTAKES = {
    "this is column j of B": lambda i: i.B[:, i.j],
    "B and column j of A are summed over r before multiplying": lambda i: i.B.sum(axis=1) * i.A[:, i.j].sum(),
    "this is the sum of all columns of B A": lambda i: i.B @ i.A.sum(axis=1),
}
