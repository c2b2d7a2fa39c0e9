"""Set 02, gradients by hand: the judge, the linear layer and GELU; what works on whole rows is in
`gradients_of_rows.py`."""

import math

import numpy as np

from ...ops import gelu_backward, gelu_forward, linear_backward, linear_forward
from ...ops.gelu import CUBIC, SQRT_2_OVER_PI, gate, gelu
from ...ops.numerical_gradient import numerical_gradient
from ..item import SIZES, Item
from .gradients_of_rows import ENTROPY, NORM, SOFTMAX

# ---------------------------------------------------------------- centred differences


def draw_differences(rng, size):
    """A function whose slope at one element depends on all others, so that an element left moved shows.

    The step is large: each other way of taking a difference then gives clearly other numbers. No element is beyond 1,
    where the package would take a larger step. One of the two arrays has three axes.
    """
    shape = (size.N, size.C) if size is SIZES[0] else (size.B, size.H, size.D)
    waves, slopes = rng.normal(size=shape), rng.normal(size=shape)

    def f(x):
        return float(np.sum(waves * np.sin(2 * x)) + np.sum(slopes * x) ** 3)

    return {"f": f, "x": rng.uniform(-0.9, 0.9, shape), "h": 0.1 / size.N}


def moved(i, where, by):
    x = i.x.copy()
    x[where] += by
    return i.f(x)


def differences(i, above, below, width):
    """(f(x + above) − f(x + below)) / width of each element, the others left as they are."""
    grad = [(moved(i, n, above) - moved(i, n, below)) / width for n in np.ndindex(i.x.shape)]
    return np.reshape(grad, i.x.shape)


def never_put_back(i):
    x, grad = i.x.copy(), np.zeros_like(i.x)
    for n in np.ndindex(x.shape):
        x[n] += i.h
        above = i.f(x)
        x[n] -= 2 * i.h
        grad[n] = (above - i.f(x)) / (2 * i.h)
    return grad


def whole_rows(i):
    grad = [(moved(i, n, i.h) - moved(i, n, -i.h)) / (2 * i.h) for n in range(len(i.x))]
    by_row = np.reshape(grad, (-1,) + (1,) * (i.x.ndim - 1))
    return np.tile(by_row, (1, *i.x.shape[1:]))


def all_at_once(i):
    return np.full_like(i.x, (i.f(i.x + i.h) - i.f(i.x - i.h)) / (2 * i.h))


DIFFERENCE = Item(
    name="centred_difference",
    arguments="f, x, h",
    outputs=("grad",),
    task="The gradient of a scalar function by centred differences.",
    draw=draw_differences,
    right=lambda f, x, h: numerical_gradient(f, x, step=h),
    factors=lambda i: {"2": 2.0, "h": i.h, "2h": 2 * i.h},
    mistakes={
        "grad": [
            ("this is the forward difference, from x to one side alone", lambda i: differences(i, i.h, 0, i.h)),
            ("this is the backward difference, from x to one side alone", lambda i: differences(i, 0, -i.h, i.h)),
            ("one of the two values is taken at x itself", lambda i: differences(i, i.h, 0, 2 * i.h)),
            ("the two values are only h apart: h/2 on either side", lambda i: differences(i, i.h / 2, -i.h / 2, i.h)),
            ("an element is not put back before the next one moves", never_put_back),
            ("a whole row is moved at once", whole_rows),
            ("all elements are moved at once", all_at_once),
            ("the step is another one, much smaller than h", lambda i: numerical_gradient(i.f, i.x)),
        ]
    },
    hints={"grad": "Which two points lie on either side of x, and how far apart? Is all else where it was?"},
    formula="grad_i = (f(x + h e_i) − f(x − h e_i)) / 2h,  e_i: 1 at element i, 0 elsewhere",
)

# ---------------------------------------------------------------- linear


def draw_linear(rng, size):
    shapes = {"dy": (size.N, size.n_out), "x": (size.N, size.n_in), "W": (size.n_out, size.n_in)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def right_linear(dy, x, W):
    return linear_backward(dy, linear_forward(x, W)[1])


LINEAR = Item(
    name="linear_backward",
    arguments="dy, x, W",
    outputs=("dx", "dW", "db"),
    task="The gradients of y = x Wᵀ + b.",
    draw=draw_linear,
    right=right_linear,
    factors=lambda i: {"N (the rows)": i.size.N, "out": i.size.n_out, "in": i.size.n_in},
    mistakes={
        "dx": [
            ("dx does not depend on dy: it is right for a dy of ones alone", lambda i: np.ones_like(i.dy) @ i.W),
            ("dx is summed over the outputs before the product", lambda i: np.outer(i.dy.sum(1), i.W.sum(0))),
        ],
        "dW": [
            ("dW does not depend on dy: it is right for a dy of ones alone", lambda i: np.ones_like(i.dy).T @ i.x),
            ("x is missing in dW", lambda i: np.outer(i.dy.sum(0), np.ones(i.size.n_in))),
            ("dW is summed over the rows before the product", lambda i: np.outer(i.dy.sum(0), i.x.sum(0))),
            ("dW is that of the last row alone", lambda i: np.outer(i.dy[-1], i.x[-1])),
            ("dW is that of the first row alone", lambda i: np.outer(i.dy[0], i.x[0])),
            ("dW is made of the output x Wᵀ and not of its gradient", lambda i: (i.x @ i.W.T).T @ i.x),
        ],
        "db": [
            ("db does not depend on dy: it is right for a dy of ones alone", lambda i: np.full(i.size.n_out, i.size.N)),
            ("db is that of the last row alone", lambda i: i.dy[-1]),
            ("db is that of the first row alone", lambda i: i.dy[0]),
            ("db is summed over rows and outputs", lambda i: np.full(i.size.n_out, i.dy.sum())),
        ],
    },
    hints={
        "dx": "x_ni acts on row n of y alone, but on every output o there. How strongly on each?",
        "dW": "Which rows of y does W_oi act on? Each of them adds its share.",
        "db": "b_o stands in output o of every row, with the factor 1.",
    },
    formula="dx = dy W\ndW = dyᵀ x\ndb = Σ_n dy_n, the sum over the rows",
)

# ---------------------------------------------------------------- GELU


def draw_gelu(rng, size):
    return {"dy": rng.normal(size=(size.N, size.F)), "x": 1.5 * rng.normal(size=(size.N, size.F))}


def right_gelu(dy, x):
    return gelu_backward(dy, gelu_forward(x)[1]).dx


def bent_gelu(i, of_tanh=lambda t: 1 - t * t, of_u=lambda x: SQRT_2_OVER_PI * (1 + 3 * CUBIC * x**2), half=0.5, x=None):
    """dy ⊙ (g + x · ½ · tanh′ · u′) with one factor of the second term as somebody else derives it."""
    g = gate(i.x)
    return i.dy * (g + (i.x if x is None else x) * half * of_tanh(2 * g - 1) * of_u(i.x))


def slope_of_exact(x):
    """Φ(x) + x φ(x): the slope of the GELU without tanh, which differs from ours in the fourth digit."""
    normal = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) + x * normal


GELU = Item(
    name="gelu_backward",
    arguments="dy, x",
    outputs=("dx",),
    task="The gradient of GELU in its tanh form.",
    draw=draw_gelu,
    right=right_gelu,
    mistakes={
        "dx": [
            ("the second term of the product rule is missing: this is dy times the gate", lambda i: i.dy * gate(i.x)),
            ("the first term of the product rule is missing", lambda i: i.right["dx"] - i.dy * gate(i.x)),
            ("the factor x is missing in the product rule's second term", lambda i: bent_gelu(i, x=1.0)),
            ("the slope of u is missing", lambda i: bent_gelu(i, of_u=np.ones_like)),
            ("in the slope of u, x³ has lost its factor 3", lambda i: bent_gelu(i, of_u=lambda x: gelu_u(x) / x)),
            ("in the slope of u, √(2/π) is missing", lambda i: bent_gelu(i, of_u=lambda x: 1 + 3 * CUBIC * x * x)),
            ("in the slope of u, the cubic term is missing", lambda i: bent_gelu(i, of_u=lambda x: SQRT_2_OVER_PI)),
            ("in the slope of tanh, the square is missing", lambda i: bent_gelu(i, of_tanh=lambda t: 1 - t)),
            ("the slope of tanh is missing", lambda i: bent_gelu(i, of_tanh=np.ones_like)),
            ("the ½ of the gate is missing in the second term", lambda i: bent_gelu(i, half=1.0)),
            ("the upstream gradient dy is missing: this is the slope", lambda i: i.right["dx"] / i.dy),
            ("dy is multiplied by y, not by the slope of y", lambda i: i.dy * gelu(i.x)),
            ("this is ReLU's gradient", lambda i: i.dy * (i.x > 0)),
            ("this is the slope of the GELU without tanh", lambda i: i.dy * slope_of_exact(i.x)),
        ]
    },
    hints={"dx": "y is a product of two factors, and x stands in both. In the second one x is two functions deep."},
    formula="g = ½ (1 + tanh u),  u = √(2/π) (x + 0.044715 x³)\n"
    "dx = dy ⊙ (g + x · ½ (1 − tanh² u) · u′),  u′ = √(2/π) (1 + 3 · 0.044715 x²)",
)


def gelu_u(x):
    return SQRT_2_OVER_PI * (x + CUBIC * x**3)


ITEMS = (DIFFERENCE, LINEAR, GELU, SOFTMAX, ENTROPY, NORM)
