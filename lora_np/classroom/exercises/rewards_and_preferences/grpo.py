"""3. GRPO (6 points).

The hard one. The arrays `log_probs`, `old` and `reference` hold the log probabilities of the tokens of N completions:
log π by the policy, log π_old by the older policy that drew them, and log π_ref by the model before training. Each
completion has an `advantage`. With ρ = π / π_old and d = log π_ref − log π, the gain of a token is

    min(ρ · advantage, clip(ρ, 1 − ε, 1 + ε) · advantage) − β (e^d − d − 1)

and the loss is minus the mean over completions of **each completion's mean over its tokens**. Only tokens for which
`real` is True count; the others are padding. ε is `clip`, and β is `beta`. Compute the loss and its gradient.

**On paper:** what are ∂ρ/∂log π and ∂d/∂log π? Plot the minimum against ρ, for an advantage of 1 and for one of −1.
Where is it flat? Where is the penalty β (e^d − d − 1) smallest, and on which side does it rise faster?

**Predict:** a token of a bad completion has ρ = 1.5, and ε is 0.2. Does its minimum have a gradient? What are the loss
and its gradient in the first step, when all three models are equal? By what factor do the gradients of tokens differ in
two completions of equal advantage, with 10 and with 100 tokens?
"""

import numpy as np

HINTS = {
    "loss": "What is the mean of one completion over its own tokens? Which sign turns a gain into a loss?",
    "dlog_probs": "Where is the minimum flat? How does e^d − d − 1 change with log π? What is each token's weight?",
}
FORMULA = """weight = real / (N · number of the completion's tokens);  loss = −Σ weight · gain
slope = ρ · advantage, or 0 where clip(ρ, 1 − ε, 1 + ε) · advantage is smaller
dlog_probs = −weight · (slope − β (1 − e^d))"""


def grpo(log_probs, old, reference, advantage, real, clip, beta):
    """log_probs, old, reference (N, T), advantage (N,), real (N, T) of bools, clip and beta floats
    -> loss, dlog_probs (N, T)."""
    ratio = np.exp(log_probs - old)  # (N, T): ρ
    free = ratio * advantage[:, None]
    limited = np.clip(ratio, 1 - clip, 1 + clip) * advantage[:, None]
    slope = np.where(free <= limited, free, 0.0)  # ∂ρ/∂log π = ρ; a clipped ratio is constant
    d = reference - log_probs  # ∂d/∂log π = −1
    penalty = beta * (np.exp(d) - d - 1)
    dpenalty = beta * (1 - np.exp(d))
    gain = np.minimum(limited, free) - penalty
    loss = -np.mean(np.mean(gain, axis=1, where=real))
    weight = real / real.sum(axis=1, keepdims=True) / len(real)  # (N, T), of each token in the mean
    dlog_probs = -weight * (slope - dpenalty)
    return loss, dlog_probs
    # The minimum is flat above 1 + ε for an advantage of 1, and below 1 − ε for −1: the bad token has a gradient. The
    # penalty is 0 at d = 0 and rises faster for d > 0, where the policy has made a token less probable. In the first
    # step ρ = 1 and d = 0: the loss is minus the mean advantage, which is 0, but the gradient is −weight · advantage.
    # The gradients differ by a factor of 10: in the short completion, each token has a larger weight.


def draw(rng, size):
    log_probs = rng.uniform(-5.0, -2.0, (size.N, size.T))
    old, reference = log_probs + 0.4 * rng.normal(size=(2, *log_probs.shape))
    drawn = {"log_probs": log_probs, "old": old, "reference": reference, "advantage": rng.normal(size=size.N)}
    real = np.arange(size.T) < rng.integers(1, size.T + 1, (size.N, 1))
    return drawn | {"real": real, "clip": float(rng.uniform(0.1, 0.3)), "beta": float(rng.uniform(0.3, 0.9))}


MISTAKES = {
    "ρ is clipped on both sides, whatever the advantage's sign": ("free <= limited", "np.abs(ratio - 1) < clip"),
    "the mean is over all tokens at once, so long completions count more than short ones": lambda i: (
        i.right["dlog_probs"] * i.real.sum(axis=1, keepdims=True) * len(i.real) / i.real.sum()
    ),
    "padding counts as if it were part of the completions": lambda i: i.solve(real=np.ones_like(i.real))[1],
    "the gradient of ρ is 1, but it must be ρ": ("free, 0.0)", "advantage[:, None], 0.0)"),
}
