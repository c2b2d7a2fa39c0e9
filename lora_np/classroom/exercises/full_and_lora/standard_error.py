"""How sure is that?

Another n snippets would have given another accuracy. How far does it scatter? That is its **standard error**. A share
goes in and a share comes out, not points.

**Derive it:** a snippet counts 1 if the model is right, which happens with probability p, and 0 otherwise. What are the
mean and the variance of such a number? What happens to the variance in a mean over n snippets? **Predict:** how many
snippets halve the error? What does the formula say if a model has 20 of 20 right: do you believe it?

A judge of your own: `(np.random.default_rng(0).binomial(n, p, 20_000) / n).std()` imagines 20,000 test splits.
"""

import numpy as np

POINTS = 1
OUTPUTS = ("error",)
HINTS = {"error": "How far does one toss of this coin scatter, and how far a mean over n of them?"}
FORMULA = "error = √( accuracy (1 − accuracy) / n )"


def standard_error(accuracy, n):
    """accuracy, a number from 0 to 1; n, a whole number of snippets -> error, a number."""
    # Mean p · 1 + (1 − p) · 0 = p. Variance p (1 − p)² + (1 − p) (0 − p)² = p (1 − p).
    variance = accuracy * (1 - accuracy)
    # A mean of n unrelated numbers has an n-th of the variance.
    return np.sqrt(variance / n)
    # To halve it, four times the snippets. At 20 of 20 it is 0, "quite sure". Do not believe it: a model that is right
    # nine times in ten has 20 of 20 about once in eight tries. The formula has the measured accuracy in place of the
    # true p, which is good enough only if there are many of both, right and wrong.


def draw(rng, size):
    least = 0.15 if size.number == 1 else 0.7
    return {"accuracy": float(rng.uniform(least, least + 0.2)), "n": 20 * size.V}


MISTAKES = {
    "error": [("this does not depend on the accuracy: it is right only at one half", lambda i: 0.5 / np.sqrt(i.n))]
}
