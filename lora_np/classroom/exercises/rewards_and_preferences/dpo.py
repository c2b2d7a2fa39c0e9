"""4. DPO (4 points).

Each of `P` pairs has two texts, y₁ and y₂, for one prompt, and people prefer y₁. `log_probs` (P, 2) holds the log
probabilities of both by the policy, and `reference` (P, 2) those by the model before training. The margin is

    m = β [(log π(y₁) − log π_ref(y₁)) − (log π(y₂) − log π_ref(y₂))]

DPO models the probability of the preference as σ(m) = 1 / (1 + e⁻ᵐ), and its loss is the mean of −log σ(m). Compute the
loss and its gradient with respect to `log_probs`. **Texts are long, so m = −800 does occur**, and e⁸⁰⁰ is too large for
float64. `np.logaddexp(a, b)` computes log(eᵃ + eᵇ) without overflow.

**Derive** the derivative of −log σ(m) with respect to m. **Predict:** what are the loss and its gradient before
training? What happens to the loss if the log probabilities of both texts fall by 5? So why may both texts lose
probability during training? Which pairs count most, and which hardly count?
"""

import numpy as np

HINTS = {
    "loss": "−log σ(m) is the logarithm of a sum of two exponentials. Which two? Over what do you average?",
    "dlog_probs": "What is the slope of −log σ(m) far below m = 0, at 0 and far above 0? How does each text change m?",
}
FORMULA = """loss = mean of log(1 + e⁻ᵐ) over the P pairs
dlog_probs = (−s, s) for each pair, with s = β σ(−m) / P = β / (P (1 + eᵐ))"""


def dpo(log_probs, reference, beta):
    """log_probs, reference (P, 2), the preferred text first, beta a float above 0 -> loss, dlog_probs (P, 2)."""
    change = log_probs - reference  # (P, 2)
    m = beta * (change[:, 0] - change[:, 1])  # (P,)
    loss = np.mean(np.logaddexp(0, -m))  # −log σ(m) = log(e⁰ + e⁻ᵐ)
    slope = beta / (1 + np.exp(m)) / len(m)  # the derivative of log(1 + e⁻ᵐ) is −e⁻ᵐ / (1 + e⁻ᵐ) = −1 / (1 + eᵐ)
    return loss, np.stack([-slope, slope], axis=1)
    # Before training, m = 0: the loss is log 2, and the gradient is −β/2P and β/2P. If both texts fall by 5, m does not
    # change: only the difference counts, so both may fall, the rejected one faster. Pairs in the wrong order (m < 0)
    # count most, up to twice as much as before training. Pairs whose m is large and positive hardly count.


def draw(rng, size):
    """Draw texts of 10 to 60 nats. In the second draw, one preferred text is so improbable that its m is about −800."""
    log_probs = rng.uniform(-60.0, -10.0, (size.N, 2))
    reference = log_probs + 3 * rng.normal(size=log_probs.shape)
    log_probs[2, 0] -= 2000.0 * (size.number == 1)
    return {"log_probs": log_probs, "reference": reference, "beta": float(rng.uniform(0.38, 0.48))}


def margins(i):
    return i.beta * (i.log_probs - i.reference) @ [1, -1]


MISTAKES = {
    "the logarithm is taken after the mean": lambda i: -np.log(np.mean(np.exp(-np.logaddexp(0, -margins(i))))),
    "pairs in the right order count most: their weight is σ(m), not σ(−m)": ("np.exp(m)", "np.exp(-m)"),
    "only the preferred text has a gradient": ("[-slope, slope]", "[-slope, 0 * slope]"),
}
