"""One column of B A.

Column `j` of a matrix says what input `j` sends out. Give column `j` of `B A` without forming `B A`. (The check
measures how much memory a call takes, for a `B` and an `A` whose product would have 6 million numbers.)

**On paper:** write one number of the product, `(B A)_oj`, as a sum. Which numbers of `A` are in it, whatever `o` is?
**Count:** for 1000 × 1000 and r = 10, how many multiplications does one column cost your way, and how many if `B A` is
formed first? And when it is right: what is *row* `o` of `B A` made of?
"""

POINTS = 2
OUTPUTS = ("column",)
HINTS = {"column": "(B A)_oj = Σ_k B_ok A_kj. Which numbers of A are in that sum, whatever o is?"}
FORMULA = "column j of B A = B · (column j of A)"


def product_column(B, A, j):
    """B (out, r), A (r, in), j a whole number from 0 to in − 1 -> column (out,)."""
    # (B A)_oj = Σ_k B_ok A_kj: of A, only column j
    return B @ A[:, j]  # (out, r) (r,) -> (out,): the columns of B, mixed with the numbers of column j of A
    # 10,000 multiplications, not 10,000,000. Row o is B[o] @ A: the rows of A, mixed with the numbers in B's row o.


def draw(rng, size):
    r = size.r + 2 + size.number
    B, A = rng.normal(size=(3 * size.n_out, r)), rng.normal(size=(r, 3 * size.n_in))
    return {"B": B, "A": A, "j": 1 + size.number}  # so small that B has a column j, too


def large(rng, size):
    inputs = {"B": rng.normal(size=(3000, 4)), "A": rng.normal(size=(4, 2000)), "j": 2}
    return inputs, 2_400_000, "B A is formed, or another array as large"


MISTAKES = {
    "column": [
        ("this is column j of B", lambda i: i.B[:, i.j]),
        ("B and A are summed first, and then multiplied", lambda i: i.B.sum(axis=1) * i.A[:, i.j].sum()),
        ("this is the sum of all columns of B A", lambda i: i.B @ i.A.sum(axis=1)),
    ]
}
