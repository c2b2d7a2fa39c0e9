"""The optimiser.

One step of **AdamW** on one array `p` with gradient `g`. `mu` and `nu` are the two moments *before* the step, and
`step` is its number t, which begins at 1. Return the new `p`, `mu` and `nu`. In this order:

1. new moments, running means of `g` and of `g²`, with `beta1` and `beta2` of the old;
2. μ̂ and ν̂, the new moments corrected for their start at zero. They are used in this step, and not returned;
3. `p` moves by `lr` μ̂ / √ν̂, with `eps` *beside* the root to keep it from dividing by zero;
4. `p` shrinks by the share `lr · weight_decay` of the **old** `p`, if it has **two axes or more**. (Biases and the
   scales of layer norms do not shrink.) The decay has no part in the moments: that is the W of AdamW.

**Derive the correction** in 2: suppose that g is the same in all t steps, and `mu` was 0. What is `mu` after one step,
after two, after t? What must it be divided by to be g? **Predict:** how far does a parameter move in the very first
step if its gradient is 5, if it is 0.005, and if it is exactly 0? And later, if its sign changes in every step?
"""

import numpy as np

POINTS = 6
OUTPUTS = ("p", "mu", "nu")
HINTS = {
    "p": "Two things happen to p: it shrinks a little, if it is a matrix, and it moves. Which mu and nu say how far?",
    "mu": "A running mean: most of the old one, a little of the new gradient. The two shares add up to 1.",
    "nu": "The same kind of mean as mu, with its own β, of another quantity of the gradient.",
}
FORMULA = """μ ← β₁ μ + (1 − β₁) g,  ν ← β₂ ν + (1 − β₂) g²
μ̂ = μ / (1 − β₁ᵗ),  ν̂ = ν / (1 − β₂ᵗ)
p ← p − lr λ p − lr μ̂ / (√ν̂ + ε),  with λ p for arrays of two axes or more alone"""


def adamw_step(p, g, mu, nu, step, lr, beta1, beta2, eps, weight_decay):
    """p, g, mu, nu of one shape, step a whole number from 1, the others numbers -> new p, mu, nu of that shape."""
    mu = beta1 * mu + (1 - beta1) * g
    nu = beta2 * nu + (1 - beta2) * g**2
    # With the same g all the time mu is (1 − β) g, then (1 − β)(1 + β) g = (1 − β²) g, and after t steps (1 − βᵗ) g.
    mu_hat = mu / (1 - beta1**step)
    nu_hat = nu / (1 - beta2**step)
    move = lr * mu_hat / (np.sqrt(nu_hat) + eps)
    shrink = 1 - lr * weight_decay if p.ndim >= 2 else 1
    # First step: μ̂ / √ν̂ is g / |g|, so 5 and 0.005 both move by lr, and 0 stays (0 / ε). If the sign changes all the
    # time, μ̂ is near 0 and ν̂ is not: p hardly moves.
    return shrink * p - move, mu, nu


def draw(rng, size):
    """A matrix, a bias, and an array of three axes. ε is large, so that it shows where it is."""
    shape = [(size.n_out, size.n_in), (size.C,), (size.T, size.H, size.D)][size.number]
    p, g, mu = rng.normal(size=(3, *shape))
    drawn = {"p": p, "g": g, "mu": mu, "nu": rng.uniform(0.5, 1.5, shape), "step": 3 + 2 * size.number}
    drawn |= {"lr": rng.uniform(0.04, 0.1), "beta1": rng.uniform(0.6, 0.85), "beta2": rng.uniform(0.9, 0.97)}
    return drawn | {"eps": rng.uniform(0.12, 0.25), "weight_decay": rng.uniform(0.3, 0.5)}


def compared(i, outputs):
    """A mistake in mu or nu costs once: a p that is not right counts by how far it is from what follows from the own mu
    and nu, which is the step from such old ones as make them of this g."""
    p, mu, nu = (outputs[name] for name in OUTPUTS)
    if not i.right or not np.shape(p) == np.shape(mu) == np.shape(nu) == i.p.shape or np.allclose(p, i.right["p"]):
        return outputs
    old_mu, old_nu = (mu - (1 - i.beta1) * i.g) / i.beta1, (nu - (1 - i.beta2) * i.g**2) / i.beta2
    follows = adamw_step(**i.inputs | {"mu": old_mu, "nu": old_nu})[0]
    return outputs | {"p": i.right["p"] + p - follows} if np.isfinite(follows).all() else outputs


def with_penalty(i):
    return adamw_step(**i.inputs | {"g": i.g + i.weight_decay * i.p * (i.p.ndim >= 2)})[1:]


L2 = "the weight decay is in the gradient: that is Adam with an L2 penalty; AdamW keeps it apart"
MISTAKES = {
    "mu": [(L2, lambda i: with_penalty(i)[0])],
    "nu": [(L2, lambda i: with_penalty(i)[1])],
}

AFTER = """**Beyond the points.** With these functions alone you can train a classifier, the head of lesson 08. Type
this in. It takes some ten seconds, most of them for the base to read a thousand snippets:

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

    def gradient(head):  # of the mean cross-entropy, exercises 03
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

Is one of them better? Then give gradient descent ten times the learning rate, and a tenth of it. Which of the two
optimisers suffers less from a badly chosen rate?
"""
