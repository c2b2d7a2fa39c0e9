"""Warm-up: a gradient check.

`f` takes an array of `x`'s shape and returns one number. Measure the gradient of `f`, also of `x`'s shape, by **central
differences**: move one entry at a time by `h` to either side, and see how `f` changes. Use the `h` that you are given.

**Before you write:** how many times is `f` called for an `x` of shape (3, 6)? Then draw a curve with three points on
it, at x and at `h` to either side: which two give the best slope at x, and why is the third not needed?

`x` may have any number of axes; `np.ndindex(x.shape)` iterates over all indices of an array. Work on a copy.
"""

import numpy as np

POINTS = 2
OUTPUTS = ("grad",)
HINTS = {"grad": "Which two points are on either side of x, and how far apart? Are all other entries unchanged?"}
FORMULA = "grad_i = (f(x + h e_i) − f(x − h e_i)) / 2h,  e_i: 1 at element i, 0 elsewhere"


def centred_difference(f, x, h):
    """f: array like x -> float, x an array, h a float -> grad, of x's shape."""
    x = x.copy()  # the caller's array is unchanged
    grad = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        value = x[place]
        x[place] = value + h
        above = f(x)
        x[place] = value - h
        below = f(x)
        x[place] = value  # restored; value − h + h may differ from value
        grad[place] = (above - below) / (2 * h)
    # There are two calls for each entry, 36 for a shape of (3, 6). f(x) itself cancels, and so does the curvature.
    return grad


def draw(rng, size):
    """Draw a function whose slope at one entry depends on all others, so that an unrestored entry is detected.

    The step is large, so that every other difference formula gives a clearly different result.
    """
    shape = [(size.N, size.C), (size.B, size.H, size.D), (size.T,)][size.number]
    waves, slopes = rng.normal(size=shape), rng.normal(size=shape)

    def f(x):
        return float(np.sum(waves * np.sin(2 * x)) + np.sum(slopes * x) ** 3)

    return {"f": f, "x": rng.uniform(-0.9, 0.9, shape), "h": 0.1 / size.N}


def one_sided(i, cut):
    """Return the one-sided difference: cut(x, i.x) keeps the other point at x."""
    return 2 * centred_difference(lambda x: i.f(cut(x, i.x)), i.x, i.h)


MISTAKES = {
    "grad": [
        ("this is the forward difference, from x to x + h", lambda i: one_sided(i, np.maximum)),
        ("this is the backward difference, from x − h to x", lambda i: one_sided(i, np.minimum)),
        ("the step is much smaller than h", lambda i: centred_difference(i.f, i.x, 1e-5)),
    ]
}

AFTER = """**Now you have your own gradient check.** A loss is one number, but a layer's output is an array. So choose
any `dy` of the output's shape, and take `L = Σ dy ⊙ y`: its gradient with respect to `y` is `dy`. Then you can check
every result of a backward pass. Here is an example for the next exercise, with random `x`, `W` and `dy` (*In words*
shows why they should be random):

    dx, dW, db = linear_backward(dy, x, W)
    measured = centred_difference(lambda W: np.sum(dy * (x @ W.T)), W, 1e-5)
    print(np.abs(dW - measured).max())

Run your own check before you run ours. Add as many cells as you need.
"""
