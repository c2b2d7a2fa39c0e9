"""5. The optimiser (6 points).

Take one step of **AdamW** on one array `p` with gradient `g`. `mu` and `nu` are the two moments *before* the step, and
`step` is the step's number t, which starts at 1. Return the new `p`, `mu` and `nu`. Proceed in this order:

1. compute the new moments, running means of `g` and `g²` in which the old moments have the weights `beta1` and `beta2`;
2. compute μ̂ and ν̂, the new moments corrected for starting at zero; they are used in this step, but not returned;
3. move `p` by `−lr` μ̂ / √ν̂, with `eps` added *outside* the root to avoid dividing by zero;
4. shrink `p` by `lr · weight_decay` times the **old** `p`, if it has **two or more axes**. (Biases and the scales of
   layer norms are not decayed.) The decay does not enter the moments: that is the W in AdamW.

**Derive the correction** in item 2: suppose that g is the same in all t steps, and that `mu` was 0. What is `mu` after
one step, after two, after t? By what must `mu` be divided to give g? **Predict:** how far does a parameter move in the
very first step if its gradient is 5, if it is 0.005, and if it is exactly 0? How far does a parameter move later, if
its gradient's sign changes at every step?
"""

import numpy as np

HINTS = {
    "p": "Two things happen to p: it shrinks a little, if it is a matrix, and it moves. Which mu and nu move it?",
    "mu": "It is a running mean: most of the old one and a little of the new gradient. The two weights add up to 1.",
    "nu": "It is the same kind of mean as mu, with its own β. Of which function of the gradient?",
}
FORMULA = """μ ← β₁ μ + (1 − β₁) g,  ν ← β₂ ν + (1 − β₂) g²
μ̂ = μ / (1 − β₁ᵗ),  ν̂ = ν / (1 − β₂ᵗ)
p ← p − lr λ p − lr μ̂ / (√ν̂ + ε),  with λ p only for arrays of two or more axes"""


def adamw_step(p, g, mu, nu, step, lr, beta1, beta2, eps, weight_decay):
    """p, g, mu, nu (same shape); step, an int, at first 1; the other arguments, floats -> the new p, mu, nu."""
    mu = beta1 * mu + (1 - beta1) * g
    nu = beta2 * nu + (1 - beta2) * g**2
    # With a constant g, mu is first (1 − β) g, then (1 − β)(1 + β) g = (1 − β²) g, and after t steps (1 − βᵗ) g.
    mu_hat = mu / (1 - beta1**step)
    nu_hat = nu / (1 - beta2**step)
    move = lr * mu_hat / (np.sqrt(nu_hat) + eps)
    shrink = 1 - lr * weight_decay if p.ndim >= 2 else 1
    # In the first step μ̂ / √ν̂ is g / |g|, so p moves by lr if g is 5 or 0.005, and does not move if g is 0 (0 / ε).
    # If the sign changes in every step, μ̂ is near 0 and ν̂ is not: p hardly moves.
    return shrink * p - move, mu, nu


def draw(rng, size):
    """Draw a matrix, a bias, and an array with three axes. ε is large enough to show where it is added."""
    shape = [(size.n_out, size.n_in), (size.C,), (size.T, size.H, size.D)][size.number]
    p, g, mu = rng.normal(size=(3, *shape))
    drawn = {"p": p, "g": g, "mu": mu, "nu": rng.uniform(0.5, 1.5, shape), "step": 3 + 2 * size.number}
    drawn |= {"lr": rng.uniform(0.04, 0.1), "beta1": rng.uniform(0.6, 0.85), "beta2": rng.uniform(0.9, 0.97)}
    return drawn | {"eps": rng.uniform(0.12, 0.25), "weight_decay": rng.uniform(0.3, 0.5)}


def compared(i, outputs):
    """Count a mistake in mu or nu only once: an incorrect p is compared with the p that follows from the student's own
    mu and nu. To compute that p, find the old moments from which a correct step would yield the student's mu and nu."""
    p, mu, nu = outputs.values()
    if not i.right or not np.shape(p) == np.shape(mu) == np.shape(nu) == i.p.shape or np.allclose(p, i.right["p"]):
        return outputs
    old_mu, old_nu = (mu - (1 - i.beta1) * i.g) / i.beta1, (nu - (1 - i.beta2) * i.g**2) / i.beta2
    follows = i.solve(mu=old_mu, nu=old_nu)[0]
    return outputs | {"p": i.right["p"] + p - follows} if np.isfinite(follows).all() else outputs


L2 = "the weight decay is added to the gradient: that is Adam with an L2 penalty; AdamW keeps the two separate"
MISTAKES = {
    "p decays after it has moved, not before": ("shrink * p - move", "shrink * (p - move)"),
    L2: lambda i: i.solve(g=i.g + i.weight_decay * i.p * (i.p.ndim >= 2)),
    "the weights β and 1 − β are swapped": lambda i: i.solve(beta1=1 - i.beta1, beta2=1 - i.beta2),
    f"{L2}, and decays only matrices": lambda i: i.solve(g=i.g + i.weight_decay * i.p),
}

AFTER = """**Beyond the points.** With these functions you can train a classification head, as in lesson 08. Type this
in. It takes about ten seconds, mostly for the base model's forward passes over a thousand snippets:

    from lora_np.experiments.runs.classify import load_snippets
    from lora_np.formats import load_pretrained
    from lora_np.model import forward

    base, config = load_pretrained()
    task = load_snippets(500)  # 500 snippets for training and 500 for testing

    def read(batches):
        features, labels = [], []
        for batch in batches:
            record = {}
            forward(base, batch.ids, config, record=record)
            features.append(read_last(record["ln_f"], batch.lengths))
            labels.append(batch.targets)
        return np.concatenate(features).astype(float), np.concatenate(labels)

    x, labels = read(task.epoch_batches(np.random.default_rng(0)))
    x_test, labels_test = read(task.evaluation_batches("test"))

    def gradient(head):  # of the mean cross-entropy (exercise set 03)
        p = np.exp(x @ head.T)
        p /= p.sum(axis=1, keepdims=True)
        return (p - np.eye(2)[labels]).T @ x / len(x)

    head = descent = mu = nu = np.zeros((2, x.shape[1]))
    for t in range(1, 201):
        head, mu, nu = adamw_step(head, gradient(head), mu, nu, t, 0.003, 0.9, 0.999, 1e-8, 0.01)
        descent = descent - 0.003 * gradient(descent)
    hits = []
    for weight in (head, descent):
        share = accuracy(x_test @ weight.T, labels_test)
        hits.append((x_test @ weight.T).argmax(axis=1) == labels_test)
        print(f"{100 * share:.1f} ± {100 * standard_error(share, len(labels_test)):.1f} %")
    print("AdamW − gradient descent: {:.3f} ± {:.3f}".format(*paired_difference(*hits)))

Is one of the two better? Then run gradient descent with ten times the learning rate, and with a tenth of it. Which of
the two optimisers is less sensitive to a badly chosen learning rate?
"""
