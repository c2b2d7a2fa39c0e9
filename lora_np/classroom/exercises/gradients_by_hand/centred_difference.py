"""1. Warm-up: a gradient check (2 points).

`f` takes an array with the shape of `x` and returns a float. Approximate the gradient of `f`, which also has the shape
of `x`, by **central differences**: move one entry at a time by `h` in both directions, and see how much `f` changes.
Use the given `h`.

**Before you write:** how many times is `f` called for an `x` of shape (3, 6)? Then draw a curve with three points on
it, at x − h, x and x + h: which two give the best estimate of the slope at x, and why is the third not needed?

`x` may have any number of axes; `np.ndindex(x.shape)` iterates over all indices of an array. Work on a copy of `x`.
"""

import numpy as np

HINTS = {"grad": "Which points lie on either side of x, and how far apart are they? Are all other entries unchanged?"}
FORMULA = "grad_i = (f(x + h e_i) − f(x − h e_i)) / 2h,  e_i: 1 at entry i, 0 elsewhere"


def centred_difference(f, x, h):
    """f a function from arrays with x's shape to floats, x an array, h a float -> grad, with x's shape."""
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
    # f is called twice for each entry: 36 times for shape (3, 6). f(x) itself cancels, and so does the curvature.
    return grad


def draw(rng, size):
    """Draw a function whose partial derivatives each depend on all entries: this reveals an entry that is not restored.

    The step is so large that any other difference formula gives a clearly different result.
    """
    shape = [(size.N, size.C), (size.B, size.H, size.D), (size.T,)][size.number]
    waves, slopes = rng.normal(size=shape), rng.normal(size=shape)

    def f(x):
        return float(np.sum(waves * np.sin(2 * x)) + np.sum(slopes * x) ** 3)

    return {"f": f, "x": rng.uniform(-0.9, 0.9, shape), "h": 0.1 / size.N}


def one_sided(i, cut):
    """Return a one-sided difference: `cut` (np.maximum or np.minimum) replaces x − h or x + h with i.x itself."""
    return 2 * i.solve(f=lambda x: i.f(cut(x, i.x)))


def whole_rows(i):
    """Return the differences if the whole row of an entry moves with it."""
    steps = [i.h * (np.arange(i.x.size) // i.x[0].size == k // i.x[0].size).reshape(i.x.shape) for k in range(i.x.size)]
    return np.reshape([(i.f(i.x + step) - i.f(i.x - step)) / (2 * i.h) for step in steps], i.x.shape)


MISTAKES = {
    "an entry is not moved back": ("x[place] = value  #", "pass  #"),
    "a whole row moves at once, not one entry": whole_rows,
    "this is the forward difference, from x to x + h": lambda i: one_sided(i, np.maximum),
    "this is the backward difference, from x − h to x": lambda i: one_sided(i, np.minimum),
    "the step is much smaller than h": lambda i: i.solve(h=1e-5),
}

AFTER = """**Now you have your own gradient check.** A loss is a scalar, but a layer's output is an array. So choose any
`dy` with the output's shape, and take `L = Σ dy ⊙ y`: its gradient with respect to `y` is `dy`. Then you can check
every result of a backward pass. Here is an example for the next exercise, with random `x`, `W` and `dy` (the question
*In words* shows why they should be random):

    dx, dW, db = linear_backward(dy, x, W)
    measured = centred_difference(lambda W: np.sum(dy * (x @ W.T)), W, 1e-5)
    print(np.abs(dW - measured).max())

Run your own check before you run ours. Add as many cells as you need.
"""
