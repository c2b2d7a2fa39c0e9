"""3. The standard error (1 point).

A different sample of n snippets would give a different accuracy. The accuracy's standard deviation over such samples is
the **standard error**. The accuracy and the error are fractions, not percentages.

**Derive it:** a snippet counts as 1 if the model is correct, which happens with probability p, and as 0 otherwise. What
are the mean and the variance of this number (1 or 0)? What is the variance of a mean over n snippets? **Predict:** by
what factor must n grow to halve the error? What does the formula give if a model classifies 20 of 20 snippets
correctly, and do you believe the result?

Check it yourself: `(np.random.default_rng(0).binomial(n, p, 20_000) / n).std()` simulates 20,000 test splits.
"""

import numpy as np

HINTS = {"error": "Think of a biased coin: what is the standard deviation of one toss, and of the mean of n tosses?"}
FORMULA = "error = √( accuracy (1 − accuracy) / n )"


def standard_error(accuracy, n):
    """accuracy, a float from 0 to 1; n, the number of snippets -> error, a float."""
    # The mean is p · 1 + (1 − p) · 0 = p. The variance is p (1 − p)² + (1 − p) (0 − p)² = p (1 − p).
    variance = accuracy * (1 - accuracy)
    # The mean of n independent values has 1/n of their variance.
    return np.sqrt(variance / n)
    # Four times as many snippets halve the error. For 20 of 20 the formula gives an error of 0. Do not believe it:
    # a model that is correct nine times in ten gets 20 of 20 about once in eight tries. The formula uses the measured
    # accuracy instead of the true p, which is good enough only if many answers are correct and many are incorrect.


def draw(rng, size):
    least = 0.15 if size.number == 1 else 0.7
    return {"accuracy": float(rng.uniform(least, least + 0.2)), "n": 20 * size.V}


MISTAKES = {
    "this does not depend on the accuracy: it is correct only for an accuracy of ½": lambda i: 0.5 / np.sqrt(i.n)
}
