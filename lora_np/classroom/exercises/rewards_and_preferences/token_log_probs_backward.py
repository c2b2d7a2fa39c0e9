"""2. The log probability of a token (3 points).

GRPO and DPO depend on the model only through the log probabilities of tokens. Position n has the logits z_n, row n of
z = x Wᵀ. If its token is t, the log probability is l_n = log softmax(z_n)[t]. The loss provides `dl`, its gradient with
respect to l, with entries of either sign. Compute the gradients with respect to `x` and `W`.

**On paper:** write l_n as a difference of two terms, and differentiate both with respect to z_ni. Why is the result
δ_it − p_i, where p = softmax(z_n), and δ_it is 1 for i = t and 0 otherwise? Why does each row of dz add up to 0? Then
work backwards through z = x Wᵀ.

**Predict:** for which `dl` is dz the gradient of the mean cross-entropy of exercise set 03? For the same dl, is the
entry of dz at the token larger if p_t = 0.01 or if p_t = 0.99?
"""

import numpy as np

HINTS = {
    "dx": "What is dz? How strongly does x_nc affect each z_ni?",
    "dW": "What is dz? Row i of W affects z_ni at every position n: add up these effects.",
}
FORMULA = "p = softmax(x Wᵀ), row by row;  dz = dl · (onehot(targets) − p)\ndx = dz W\ndW = dzᵀ x"


def token_log_probs_backward(dl, x, W, targets):
    """dl (N,), x (N, C), W (V, C), targets (N,) of ints 0 … V−1 -> dx (N, C), dW (V, C)."""
    z = x @ W.T  # (N, V)
    exp = np.exp(z - z.max(axis=1, keepdims=True))
    p = exp / exp.sum(axis=1, keepdims=True)  # (N, V)
    # l = z_t − log Σ_j exp(z_j): the first term gives δ_it, and the second −p_i. If the same number is added to all
    # logits of a row, l does not change, so a row of dz adds up to 0.
    onehot = np.eye(len(W))[targets]  # (N, V)
    dz = dl[:, None] * (onehot - p)  # (N, V)
    return dz @ W, dz.T @ x
    # With dl = −1/N, dz is the gradient of the mean cross-entropy. At the token, dz is dl (1 − p_t): larger for 0.01.


def draw(rng, size):
    targets = rng.choice(size.V, size.N, replace=False)
    return size.normals(rng, dl="N", x="N C", W="V C") | {"targets": targets}


MISTAKES = {"dl belongs to log p, but is taken to belong to p": ("dl[:, None]", "dl[:, None] * p[onehot > 0][:, None]")}
