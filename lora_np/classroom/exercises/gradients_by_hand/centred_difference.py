"""Warm-up: the judge.

`f` takes an array like `x` and gives one number. Measure its gradient, an array like `x`, by **centred differences**:
move one number at a time by `h` to either side, and see how `f` changes. Use the `h` that you are given.

**Before you write:** how often will `f` be called for an `x` of 3 × 6? And draw a curve with three points on it, at x
and `h` to either side: which two of them give the slope at x best, and why is the third not needed?

`x` may have any number of axes; `np.ndindex(x.shape)` runs through all places of an array. Work on a copy.
"""

import numpy as np

POINTS = 2
OUTPUTS = ("grad",)
HINTS = {"grad": "Which two points are on either side of x, and how far apart? Is everything else where it was?"}
FORMULA = "grad_i = (f(x + h e_i) − f(x − h e_i)) / 2h,  e_i: 1 at element i, 0 elsewhere"


def centred_difference(f, x, h):
    """f: array like x -> number, x an array, h a number -> grad, of x's shape."""
    x = x.copy()  # the caller's array is unchanged
    grad = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        value = x[place]
        x[place] = value + h
        above = f(x)
        x[place] = value - h
        below = f(x)
        x[place] = value  # put back; value − h + h need not be value
        grad[place] = (above - below) / (2 * h)
    # Two calls for each number: 36 for 3 × 6. f(x) itself drops out, and with it the curve's bend.
    return grad


def draw(rng, size):
    """A function whose slope at one element depends on all others, so that an element left moved shows.

    The step is large, so that every other way of taking a difference gives clearly different numbers.
    """
    shape = [(size.N, size.C), (size.B, size.H, size.D), (size.T,)][size.number]
    waves, slopes = rng.normal(size=shape), rng.normal(size=shape)

    def f(x):
        return float(np.sum(waves * np.sin(2 * x)) + np.sum(slopes * x) ** 3)

    return {"f": f, "x": rng.uniform(-0.9, 0.9, shape), "h": 0.1 / size.N}


def one_sided(i, cut):
    """The difference from x to one side, as cut(x, i.x) keeps the other point at x."""
    return 2 * centred_difference(lambda x: i.f(cut(x, i.x)), i.x, i.h)


MISTAKES = {
    "grad": [
        ("this is the forward difference, from x to one side alone", lambda i: one_sided(i, np.maximum)),
        ("this is the backward difference, from x to one side alone", lambda i: one_sided(i, np.minimum)),
        ("the step is another one, much smaller than h", lambda i: centred_difference(i.f, i.x, 1e-5)),
    ]
}

AFTER = """**From here on you have a judge of your own.** A loss is one number, and a layer's output is an array. So
choose any `dy` of the output's shape, and take `L = Σ dy ⊙ y`: its gradient with respect to `y` is `dy`. Then your
judge can check every result of a backward pass. For the next task, for example, with random `x`, `W` and `dy`
(see *In words* on why they should be random):

    dx, dW, db = linear_backward(dy, x, W)
    measured = centred_difference(lambda W: np.sum(dy * (x @ W.T)), W, 1e-5)
    print(np.abs(dW - measured).max())

Ask your own judge before you ask ours. Make as many cells as you need.
"""
