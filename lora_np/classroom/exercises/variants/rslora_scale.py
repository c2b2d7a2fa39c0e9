"""1. Warm-up: rsLoRA (2 points).

rsLoRA uses a scale `s` for which `s² r` does not depend on the rank. Compute `s` from `alpha` and `r`. Also compute
`alpha_lora`, the α for which plain **LoRA** has the same scale at the same rank.

**Predict first:** for α = 16, what is `s` under each method's rule at r = 4 and at r = 64? By what factor does each
method's `s` change from r = 4 to r = 64? **Then:** two colleagues train with r = 16, one with LoRA, one with rsLoRA. Is
there a result that one of them can reach and the other cannot, if each may choose any α?
"""

import numpy as np

HINTS = {
    "s": "s² r must not depend on r. To which power of r is s proportional?",
    "alpha_lora": "LoRA's scale is α / r. Which value must this scale have?",
}
FORMULA = "s = α/√r\nα_lora / r = s, so α_lora = α √r"


def rslora_scale(alpha, r):
    """alpha a float, r an int -> s, alpha_lora, two floats."""
    s = alpha / np.sqrt(r)
    return s, s * r  # LoRA's scale is alpha_lora / r
    # For α = 16, from r = 4 to r = 64, LoRA's s falls from 4 to 0.25, by a factor of 16; rsLoRA's s falls from 8 to 2,
    # by a factor of 4. At a fixed rank, LoRA and rsLoRA are the same method with different values of α: rsLoRA is a
    # rule for transferring α from one rank to another.


def draw(rng, size):
    return {"alpha": float(rng.uniform(5, 40)), "r": [3, 7, 12][size.number]}


def compared(i, outputs):
    """Also accept the α for which LoRA's scale is the student's own s."""
    s, alpha = outputs["s"], outputs["alpha_lora"]
    if s is not None and alpha is not None and np.ndim(s) == np.ndim(alpha) == 0:
        alpha = i.right.get("alpha_lora", alpha) if s != 0 and np.isclose(alpha / i.r, s) else alpha
    return {"s": s, "alpha_lora": alpha}


MISTAKES = {
    "this is LoRA's scale": lambda i: i.alpha / i.r,
    "the square root of α is used, not that of r": lambda i: np.sqrt(i.alpha) / i.r,
    "this is the given α, with which LoRA has a different scale": lambda i: i.alpha,
}
