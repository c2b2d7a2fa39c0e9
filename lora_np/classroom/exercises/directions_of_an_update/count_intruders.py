"""5. Intruders (4 points).

Now look at the sum, `W_tuned` = W + ΔW. Take its k leading **left** singular vectors y_j. The **similarity** of y_j is
its largest |cos| with any of W's left singular vectors x_i. A y_j whose similarity is below ε is an **intruder**.
Return the k similarities, the leading direction's first, and the number of intruders.

"Any" refers to all x_i that belong to a singular value of W: there are min(out, in) of them. (How many columns does
NumPy's `U` have by default?)

**Predict** for W = diag(5, 4, 3, 2), k = 2 and ε = 0.5. First, W_tuned = diag(5, 4, 3, 9): the last direction is now
the leading one. Is it an intruder? Second, the two leading directions of W are rotated by 45° in their plane: what are
the similarities of the rotated directions? Third, one direction of W_tuned is an equal mixture of n directions of W.
What is the smallest n for which this mixture counts as an intruder, although it contains nothing new?
"""

import numpy as np

HINTS = {
    "similarities": "One direction of W_tuned has a cosine with each of W's. Which of these shows that it is not new?",
    "number": "A direction is an intruder if even W's most similar direction is not similar enough to it.",
}
FORMULA = """similarity of y_j = max_i |x_i · y_j|
x_i: all left singular vectors of W; y_j: the k leading ones of W_tuned
number = how many of the k are below ε"""


def count_intruders(W, W_tuned, k, epsilon):
    """W, W_tuned (out, in), k an int, epsilon a float -> similarities (k,) and number, an int."""
    X = np.linalg.svd(W, full_matrices=False)[0]  # (out, min(out, in)); by default U would be (out, out)
    Y = np.linalg.svd(W_tuned, full_matrices=False)[0][:, :k]  # (out, k)
    cosines = np.abs(X.T @ Y)  # (min(out, in), k): the sign of a singular vector is arbitrary
    similarities = cosines.max(axis=0)  # (k,), the largest in each column
    return similarities, int(np.sum(similarities < epsilon))
    # First: no, it is W's fourth direction, with a similarity of 1. Second: both are 0.71, so there are no intruders.
    # Third: each of the n cosines is 1/√n, which is below ½ for n ≥ 5. The measure compares single directions, not
    # spans.


def draw(rng, size):
    """Draw a W with decreasing singular values. The update has one to four large directions (each a mixture of all of
    W's directions), a term that makes W's last direction stronger than W's other directions, and a little noise.

    In the first draw, W is tall, and the first large direction lies mostly outside W's column space. ε is halfway
    between two similarities.
    """
    n, many = 4 * size.n_out, int(rng.integers(1, 5))
    n_out, n_in = [(n + 2, n), (n, n + 4 * size.r), (n + 2, n)][size.number]
    U, V = (np.linalg.qr(rng.normal(size=(of, n)))[0] for of in (n_out, n_in))
    W = U * np.linspace(6.0, 1.0, n) @ V.T
    new = U @ np.sign(rng.normal(size=(n, many))) / np.sqrt(n)  # (out, many), equal parts of each old direction
    if size.number == 0:
        outside = np.linalg.qr(np.column_stack([U, rng.normal(size=n_out)]))[0][:, -1]
        new[:, 0] = 0.6 * new[:, 0] + 0.8 * outside
    large = new * np.linspace(12.0, 10.0, many) @ np.linalg.qr(rng.normal(size=(n_in, many)))[0].T
    W_tuned = W + large + 6.5 * np.outer(U[:, -1], V[:, -1]) + 0.15 * rng.normal(size=W.shape)
    k = 5 + 2 * size.number
    similarities = np.sort(count_intruders(W, W_tuned, k, 0.5)[0])
    return {"W": W, "W_tuned": W_tuned, "k": k, "epsilon": float(np.mean(similarities[many - 1 : many + 1]))}


def compared(i, outputs):
    """If the similarities are wrong, accept the number of intruders that follows from them: a mistake counts once."""
    own, number = outputs["similarities"], outputs["number"]
    if i.right and own is not None and np.ptp(own) > 0 and np.array_equal(number, np.sum(own < i.epsilon)):
        return outputs | {"number": i.right["number"]}
    return outputs


MISTAKES = {
    "only W's k leading directions are compared, not all of them": ("X.T @ Y", "X[:, :k].T @ Y"),
    "each direction is compared only with W's direction of the same index": ("cosines.max(axis=0)", "np.diag(cosines)"),
    "these are right singular vectors, which are input directions": ("False)[0]", "False)[2].T"),
}
