"""5. The best weight for an adapter (2 points).

At weight 1, `W + ΔW`, an adapter does its job, but the model forgets too much. Someone has measured two losses, in nats
per token, at the weights 0, ½ and 1: `new` on the texts that the adapter was trained for, and `old` on texts that the
base was good at. One nat on the old texts counts as much as `price` nats on the new ones. Fit a parabola to the three
values of the total cost, `new + price · old`, and return the weight at its lowest point, which may be above 1.

**Derive** a and b of f(w) = a w² + b w + c from f(0), f(½) and f(1), or let `np.polyfit` do it. **Predict:** above
which price is it best to leave the adapter off (w = 0)? (Section 4 of the lesson: for small w, the gain grows like w,
and forgetting grows like w².)
"""

import numpy as np

HINTS = {"w": "What should be minimised? Which parabola passes through the three values, and where is its slope 0?"}
FORMULA = "f = new + price · old;  w = (3 f₀ − 4 f_½ + f₁) / 4 (f₀ − 2 f_½ + f₁)"


def best_weight(new, old, price):
    """new (3,), old (3,), the losses at the weights 0, ½ and 1; price, a float -> w, a float."""
    f0, f_half, f1 = new + price * old
    # c = f0; this leaves two equations: a/4 + b/2 = f_half − f0 and a + b = f1 − f0
    a = 2 * (f1 - 2 * f_half + f0)
    b = (f1 - f0) - a
    return -b / (2 * a)  # the slope 2 a w + b is 0 there
    # There is no such price if the slope of the old texts' loss is 0 at w = 0: near 0, a term in w beats a term in w²,
    # however high the price. A small weight is always better than a weight of 0. (If the base is not at a minimum of
    # that loss, `old` also has a slope at 0, and such a price may exist.)


def draw(rng, size):
    """Draw losses whose best weight is between 0 and 1, except in the second draw, where it is above 1."""
    gain, bend, forgetting, price = [(1.8, 1.0, 0.4, 1.4), (1.6, 0.5, 0.2, 0.6), (1.0, 0.6, 0.5, 2.2)][size.number]
    w, (noise, more) = np.array([0.0, 0.5, 1.0]), rng.uniform(-0.005, 0.005, (2, 3))
    return {"new": 2.6 - gain * w + bend * w**2 + noise, "old": 2.3 + forgetting * w**2 + more, "price": price}


MISTAKES = {
    "this is one of the three measured weights": lambda i: np.argmin(i.new + i.price * i.old) / 2,
    "it is clipped at 1, but the lowest point may be above 1": lambda i: min(i.right["w"], 1.0),
    "price multiplies new, but it is old that counts price times": ("new + price * old", "price * new + old"),
    "it is doubled: are the three weights 0, ½ and 1, and is the slope 2 a w + b?": lambda i: 2 * i.right["w"],
}
