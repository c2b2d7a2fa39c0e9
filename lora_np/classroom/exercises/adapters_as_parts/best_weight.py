"""How loud?

An adapter does its work at weight 1, `W + ΔW`, and forgets too much. Someone has measured two losses, in nats per
token, at the weights 0, ½ and 1: `new` on the texts that it was made for, `old` on those that the base was good at. A
nat lost on the old texts counts as `price` nats on the new ones. Fit a parabola to the three values of what should be
as small as possible, and give the weight at its lowest point. It may be above 1.

**Derive** a and b of f(w) = a w² + b w + c from f(0), f(½) and f(1), or let `np.polyfit` do it. **Predict:** from which
price on is it best to leave the adapter off, w = 0? (Section 4 of the lesson: for small w, gain grows like w,
forgetting like w².)
"""

import numpy as np

POINTS = 2
OUTPUTS = ("w",)
HINTS = {"w": "What should be smallest? Which parabola goes through its three values, and where is its slope 0?"}
FORMULA = "f = new + price · old;  w = (3 f₀ − 4 f_½ + f₁) / 4 (f₀ − 2 f_½ + f₁)"


def best_weight(new, old, price):
    """new (3,), old (3,): losses at the weights 0, ½ and 1; price a number -> w, a number."""
    f0, f_half, f1 = new + price * old
    # c = f0, and then two equations: a/4 + b/2 = f_half − f0, a + b = f1 − f0
    a = 2 * (f1 - 2 * f_half + f0)
    b = (f1 - f0) - a
    return -b / (2 * a)  # the slope 2 a w + b is 0 there
    # There is no such price, as long as the old texts' loss has no slope at w = 0: near 0 a term in w beats a term in
    # w², however high the price. A little of the adapter is always better than nothing. (If the base was not at the
    # bottom of its valley, old has a slope at 0 too, and then there may be one.)


def draw(rng, size):
    """The lowest point is between the measured ones, and in the second draw beyond them."""
    gain, bend, forgetting, price = [(1.8, 1.0, 0.4, 1.4), (1.6, 0.5, 0.2, 0.6), (1.0, 0.6, 0.5, 2.2)][size.number]
    w, (noise, more) = np.array([0.0, 0.5, 1.0]), rng.uniform(-0.005, 0.005, (2, 3))
    return {"new": 2.6 - gain * w + bend * w**2 + noise, "old": 2.3 + forgetting * w**2 + more, "price": price}


MISTAKES = {
    "w": [
        ("this is one of the three weights that were measured", lambda i: np.argmin(i.new + i.price * i.old) / 2),
        ("it is twice as much: is the 2 of −b/2a there, and are the measurements ½ apart?", lambda i: 2 * i.right["w"]),
        ("it is cut off at 1: the lowest point may be above", lambda i: min(i.right["w"], 1.0)),
    ]
}
