"""4. Is one model better than the other? (4 points).

Two models have classified **the same** n snippets. `hits_one` and `hits_other` (n,), one array per model, are `True`
for each snippet that the model classified correctly. Return the difference between the two accuracies, the first minus
the second, and the standard error of that difference, both as fractions.

Snippets that are hard for one model tend to be hard for the other. So the two accuracies rise and fall together from
one set of snippets to the next, and their difference is more certain than either of them. To use this, compute **one
number for each snippet** that shows which model did better on it. The difference is the mean of these numbers, so again
you need the standard error of a mean. (Use the standard deviation that divides by n, as `np.std` does.)

**Predict:** of 1,000 snippets, 56 are classified correctly only by the first model, and 56 only by the second. What is
the difference, and what, roughly, is its standard error? Take two pairs of models, all four with an accuracy of 75 %.
The models of one pair agree on nine snippets in ten, those of the other on six in ten. For which pair is the difference
between the accuracies more certain? (NumPy refuses to subtract two boolean arrays. Try it, and read why.)
"""

import numpy as np

HINTS = {
    "difference": "Compute one number for each snippet that shows which model was better. Which values can it have?",
    "error": "What is the standard error of the mean of n such numbers? (They take three values, a coin only two.)",
}
FORMULA = """d = hits_one − hits_other, which is 1, 0 or −1 for each snippet
difference = mean of d
error = (standard deviation of d) / √n"""


def paired_difference(hits_one, hits_other):
    """hits_one, hits_other (n,) of bools, True where the model was correct -> difference and error, two floats."""
    d = hits_one.astype(float) - hits_other  # (n,): 1 if only the first is correct, −1 if only the second is, else 0
    difference = d.mean()
    variance = np.mean((d - difference) ** 2)
    error = np.sqrt(variance / len(d))  # the same as d.std() / √n
    # With 56 and 56, the mean is 0, the mean of d² is 112/1000, and the error is √(0.112 / 1000), about 1.1 points;
    # with two separate test splits it would be nearly twice as large. Snippets on which both models agree add nothing
    # to the variance, so the difference is more certain for the pair that agrees more often.
    return difference, error


def draw(rng, size):
    """Draw four different counts of snippets: those classified correctly by both models, by only the first, by only the
    second, and by neither. In the second draw, the second model is better."""
    both, first, second, neither = rng.permutation(np.arange(3, 20))[:4]
    if (first < second) != (size.number == 1):
        first, second = second, first
    hits = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], (both, first, second, neither), axis=0) == 1
    one, other = rng.permutation(hits).T.copy()
    return {"hits_one": one, "hits_other": other}


MISTAKES = {
    "only the snippets on which the models differ are averaged": ("= d.mean()", "= d[d != 0].mean()"),
    "the error is computed only from differing snippets": ("(variance / len(d))", "(d[d != 0].var() / (d != 0).sum())"),
    "this is the error for two separate test splits": ("variance / len", "(hits_one.var() + hits_other.var()) / len"),
    "each snippet on which the models differ counts as 1, so the sign is lost": ("float) - hits", "float) != hits"),
}
