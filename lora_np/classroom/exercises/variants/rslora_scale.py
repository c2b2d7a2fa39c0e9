"""Warm-up: rsLoRA.

rsLoRA has another scale, made so that `s² r` does not depend on the rank. Give it, from `alpha` and `r`. Give also
`alpha_lora`, the α with which plain **LoRA** has that scale at the same rank.

**Predict first,** for α = 16 and r = 4, then 64: what is `s` by each of the two rules? What happens to it when the rank
is 16 times as high? **Then:** two people train at r = 16, one with LoRA, one with rsLoRA. Is there anything that one of
them can reach and the other cannot?
"""

import numpy as np

POINTS = 2
OUTPUTS = ("s", "alpha_lora")
HINTS = {
    "s": "At which power of r does s² r stay as it is when r grows?",
    "alpha_lora": "LoRA's s is its α over r. You know which s it must be.",
}
FORMULA = "s = α/√r\nα_lora / r = s, so α_lora = α √r"


def rslora_scale(alpha, r):
    """alpha a number, r a whole number -> s, alpha_lora, two numbers."""
    s = alpha / np.sqrt(r)
    return s, s * r  # LoRA's scale is alpha_lora / r
    # α = 16: LoRA has s = 4 at r = 4 and 0.25 at r = 64, 16 times smaller; rsLoRA has 8 and 2, 4 times smaller. At one
    # rank they are the same method with two names for α: rsLoRA is a rule for carrying α from one rank to another.


def draw(rng, size):
    return {"alpha": float(rng.uniform(5, 40)), "r": [3, 7, 12][size.number]}


def compared(i, outputs):
    """α is also right if LoRA has the student's own s with it."""
    s, alpha = outputs["s"], outputs["alpha_lora"]
    if s is not None and alpha is not None and np.ndim(s) == np.ndim(alpha) == 0:
        alpha = i.right.get("alpha_lora", alpha) if s != 0 and np.isclose(alpha / i.r, s) else alpha
    return {"s": s, "alpha_lora": alpha}


MISTAKES = {
    "s": [
        ("this is LoRA's scale", lambda i: i.alpha / i.r),
        ("the root is taken of α, not of r", lambda i: np.sqrt(i.alpha) / i.r),
    ],
    "alpha_lora": [("this is the α that was given: with it, LoRA has another scale", lambda i: i.alpha)],
}
