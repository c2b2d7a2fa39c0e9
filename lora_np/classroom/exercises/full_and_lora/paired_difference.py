"""Is one better than the other?

Two models have answered **the same** n snippets. `hits_one` and `hits_other` (n,) say for each snippet whether the
model was right: `True` or `False`. Give the difference of the two accuracies, the first minus the other, and the
standard error of that difference. Both are shares.

Two models find the same snippets hard, so their accuracies rise and fall together from one set of snippets to the next,
and the difference is known better than either. To use that, write **one number for each snippet** that says who was
better there. The difference is their mean; now you need the standard error of a mean again. (The standard deviation
divides by n, as `np.std` does.)

**Predict:** of 1,000 snippets, each model is right where the other is wrong in 56. What is the difference, and roughly
its error? Two pairs of models have 75 % each; one pair gives the same answer to nine snippets in ten, the other to six.
Which difference is known better? (NumPy does not subtract one array of bools from another. Try it, and read why.)
"""

import numpy as np

POINTS = 4
OUTPUTS = ("difference", "error")
HINTS = {
    "difference": "Write one number for each snippet that says who was better there. Which values can it have?",
    "error": "One number for each snippet, n of them: how far does their mean scatter? (They are no longer coins.)",
}
FORMULA = """d = hits_one − hits_other, for each snippet 1, 0 or −1
difference = mean of d
error = (standard deviation of d) / √n"""


def paired_difference(hits_one, hits_other):
    """hits_one, hits_other (n,) of bools, True where the model was right -> difference, error, two numbers."""
    d = hits_one.astype(float) - hits_other  # (n,): 1 only the first was right, −1 only the other, 0 no difference
    difference = d.mean()
    variance = np.mean((d - difference) ** 2)
    error = np.sqrt(variance / len(d))  # the same as d.std() / √n
    # 56 and 56: the mean is 0, the mean of d² 112/1000, and the error √(0.112 / 1000), about 1.1 points; with two
    # separate test splits it would be nearly twice as large. Snippets on which both agree add nothing to the scatter,
    # so the pair that agrees more often is known better.
    return difference, error


def draw(rng, size):
    """Four different numbers of snippets: both models right, the first alone, the second alone, neither. In the second
    draw the second model is the better one."""
    both, first, second, neither = rng.permutation(np.arange(3, 20))[:4]
    if (first < second) != (size.number == 1):
        first, second = second, first
    hits = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], (both, first, second, neither), axis=0) == 1
    one, other = rng.permutation(hits).T.copy()
    return {"hits_one": one, "hits_other": other}


MISTAKES = {
    "difference": [
        (
            "this is the difference among the snippets on which they differ, not among all",
            lambda i: i.right["difference"] / np.mean(i.hits_one != i.hits_other),
        )
    ],
    "error": [
        (
            "this is for two separate test splits, but both models saw the same snippets",
            lambda i: np.sqrt((np.var(i.hits_one) + np.var(i.hits_other)) / len(i.hits_one)),
        ),
        (
            "this is the standard error of the share on which they differ, whoever is right",
            lambda i: np.std(i.hits_one != i.hits_other) / np.sqrt(len(i.hits_one)),
        ),
    ],
}
