"""2. The drop in loss that a gradient predicts (2 points).

The backward pass has filled a dictionary that maps the name of each parameter to its gradient. One step of gradient
descent moves every parameter by `−lr` times its gradient. If the step is small, by how much does the loss fall? Return
the drop as a positive number.

**Derive it** for a single parameter with slope g: how far does it move, and how much does the loss change per unit of
that distance? Then do the same for two parameters, and for all parameters. **Predict:** which arrays of a model
contribute most to the sum? If the loss is convex, like a bowl, is the true drop larger or smaller than the predicted
one?
"""

import numpy as np

HINTS = {"drop": "By how much does each parameter move, and by how much does the loss change per unit of movement?"}
FORMULA = "drop = lr · Σ g², over every entry of every array"


def predicted_drop(grads, lr):
    """grads: dict of arrays of any shapes, lr a float -> drop, a float."""
    # A parameter with slope g moves by −lr g, and L changes by g per unit: −lr g² in total.
    # Arrays with large gradients contribute most. In a bowl the slope decreases on the way, so the true drop is
    # smaller.
    squares = sum(np.sum(g**2) for g in grads.values())
    return lr * squares


def draw(rng, size):
    grads = size.normals(rng, **{"q_proj.weight": "C C", "q_proj.bias": "C", "up_proj.weight": "F C"})
    return {"grads": grads, "lr": float(rng.uniform(0.01, 0.03))}


MISTAKES = {
    "each gradient's entries are summed before squaring": lambda i: i.lr * sum(g.sum() for g in i.grads.values()) ** 2,
    "the arrays' norms are added up before squaring": lambda i: i.lr * sum(map(np.linalg.norm, i.grads.values())) ** 2,
    "this is the contribution of the last array only": lambda i: i.lr * np.sum([*i.grads.values()][-1] ** 2),
}
