"""Gradients by hand.

`dy` is the upstream gradient, ∂L/∂y: an array like `y`, whose numbers say how fast the loss `L` changes with each
number of `y`. A backward pass turns it into the same for what went into `y`.

The lesson has the formulas. Close it, and find them again on paper: copying teaches you nothing. Begin each derivation
with one number: which numbers of `y` does it change, and how strongly each? Add these up. The matrix form comes last.
"""

__all__ = ["ANSWER", "EXERCISES", "NEEDS", "POINTS", "QUESTION", "TIME"]
NEEDS = "lesson 03 (`notebooks/03_gradients_by_hand.ipynb`), lesson 04 for the last task, paper and a pencil"
TIME = "two hours in two sittings: a warm-up of ten minutes, four derivations, and a hard one at the end"
EXERCISES = (
    "centred_difference",
    "linear_backward",
    "gelu_backward",
    "softmax_backward",
    "cross_entropy_backward",
    "layer_norm_backward",
)
QUESTION = """In words: four colleagues and their judges.

Four colleagues compare a backward pass with centred differences. The first three have written layer norm (C = 16) and
note the relative error; `dy` and everything else is random. Dana has written softmax and takes `L = Σ p`, so her `dp`
is all ones; she notes the largest difference.

| h | 1e-1 | 1e-2 | 1e-3 | 1e-5 | 1e-8 |
|---|---:|---:|---:|---:|---:|
| Ada | 3e-4 | 3e-6 | 3e-8 | 9e-11 | 7e-8 |
| Ben | 8e-3 | 8e-3 | 8e-3 | 8e-3 | 8e-3 |
| Chen | 3e-4 | 4e-5 | 4e-4 | 5e-2 | 1 |
| Dana | 2e-15 | 2e-14 | 2e-13 | 2e-11 | 2e-8 |

Who has a bug, who has none, and about whom can you not tell? Give each colleague one or two sentences: what do the
numbers show, and what should he or she do next?
"""
ANSWER = """**Ada** has no bug. Her error falls with h² (a tenth of the step, a hundredth of the error), as it should
with centred differences, until rounding takes over. At 1e-8 the two values of `L` differ in so few digits that the
*measurement* is bad, not the gradient. She is done.

**Ben** has a bug. His error does not depend on h, so it comes from the formula, not from the judge: a small term is
missing or has a wrong factor. (He has C − 1 in place of C in one of the means.) An error below one per cent looks like
rounding, and is not. He should look for it term by term.

**Chen**: you cannot tell. His numbers have seven digits (float32), so the error falls only to 4e-5, and then grows as h
shrinks. A right gradient looks like this, but so does one with a smaller bug. He should repeat the test in float64.

**Dana** has tested nothing. A row of `p` adds up to 1 for any `x`, so her `L` is constant and its gradient zero. Any
function that gives zeros there passes, such as `np.zeros_like(p)`. She sees rounding, and should take a random `dp`.

*Marks:* one point for each colleague: half for the verdict, half for what the row shows and what to do next.
"""
POINTS = 4
