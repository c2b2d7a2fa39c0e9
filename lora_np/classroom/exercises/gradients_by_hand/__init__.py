"""03. Gradients by hand.

`dy` is the upstream gradient, ∂L/∂y: an array with the shape of `y`. Each entry is the derivative of the loss `L` with
respect to the same entry of `y`. From `dy`, a backward pass computes the gradients of the inputs.

The lesson contains the formulas. Close it, and derive each formula on paper: copying teaches nothing. Begin each
derivation with one entry of an input: which entries of `y` does it change, and how strongly? Add up these effects.
Write the matrix form last.
"""

NEEDS = "lesson 04 for the last exercise, paper and a pencil"
TIME = "two hours in two sessions: a ten-minute warm-up, four derivations, and a hard one at the end"
QUESTION = """7. In words: four colleagues and their gradient checks (4 points).

Four colleagues compare a backward pass with central differences. The first three have written layer norm (C = 16) and
report the relative error; `dy` and all other inputs are random. Dana has written softmax and takes `L = Σ p`, so her
`dp` is all ones; she reports the largest absolute difference.

| h | 1e-1 | 1e-2 | 1e-3 | 1e-5 | 1e-8 |
|---|---:|---:|---:|---:|---:|
| Ada | 3e-4 | 3e-6 | 3e-8 | 9e-11 | 7e-8 |
| Ben | 8e-3 | 8e-3 | 8e-3 | 8e-3 | 8e-3 |
| Chen | 3e-4 | 4e-5 | 4e-4 | 5e-2 | 1 |
| Dana | 2e-15 | 2e-14 | 2e-13 | 2e-11 | 2e-8 |

Who has a bug, who has none, and for whom is it impossible to tell? Write one or two sentences about each colleague:
what do the numbers show, and what should he or she do next?
"""
ANSWER = """**Ada** has no bug. Her error falls as h² (a tenth of the step gives a hundredth of the error), as it should
with central differences, until rounding errors dominate. At h = 1e-8 the two values of `L` differ only in their last
digits, so the *measurement* is bad, not the gradient. She is done.

**Ben** has a bug. His error does not depend on h, so it comes from the formula, not from the check: a small term is
missing, or a term has a slightly incorrect factor. (He divides by C − 1 instead of C in one of the means.) An error
below one per cent looks like rounding, but is not. He should check the formula term by term.

**Chen**: you cannot tell. His values have seven digits (float32), so the error falls only to 4e-5, and then grows as h
shrinks. A correct gradient looks like this, but so does one with a small bug. He should repeat the test in float64.

**Dana** has tested nothing. A row of `p` adds up to 1 for any `x`, so her `L` is constant and its gradient is zero.
Even `np.zeros_like(p)` would pass this test. Her numbers are rounding errors. She should use a random `dp`.

*Marks:* one point for each colleague: half for the verdict, half for the reason and the next step.
"""
