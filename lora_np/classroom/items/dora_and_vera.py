"""Set 11, third part: layers with a formula of their own. VeRA trains two vectors, DoRA sets each row to a length."""

import numpy as np

from ...adapters import AdapterConfig, dora, vera
from ..item import Item
from .lora_layer import config_of

# ---------------------------------------------------------------- VeRA


def draw_vera(rng, size):
    A, B = vera.projections((size.n_out, size.n_in), size.r, size.r, "float64")
    return {
        "dy": rng.normal(size=(size.N, size.n_out)),
        "x": rng.normal(size=(size.N, size.n_in)),
        "W": rng.normal(size=(size.n_out, size.n_in)),
        "A": A.copy(),
        "B": B.copy(),
        "lambda_d": rng.normal(size=size.r),
        "lambda_b": rng.normal(size=size.n_out),
    }


def right_vera(dy, x, W, A, B, lambda_d, lambda_b):
    """The package draws A and B from a seed, here from r."""
    config = AdapterConfig(r=len(A), kind="vera", projection_seed=len(A))
    _, cache = vera.forward(x, W, None, dict(zip(vera.LAMBDAS, (lambda_d, lambda_b))), config)
    dx, grads = vera.backward(dy, cache)
    return dx, *(grads[name] for name in vera.LAMBDAS)


def inner(i, d=None):
    """z = (λ_d ⊙ (x Aᵀ)) Bᵀ, (N, out)."""
    return ((i.lambda_d if d is None else d) * (i.x @ i.A.T)) @ i.B.T


def dw(i, b=None):
    """The gradient of w = λ_d ⊙ v, (N, r)."""
    return ((i.lambda_b if b is None else b) * i.dy) @ i.B


VERA = Item(
    name="vera_backward",
    arguments="dy, x, W, A, B, lambda_d, lambda_b",
    outputs=("dx", "dlambda_d", "dlambda_b"),
    task="The gradients of VeRA's layer, whose factors stay as they were drawn.",
    draw=draw_vera,
    right=right_vera,
    factors=lambda i: {"N (the rows)": i.size.N},
    mistakes={
        "dx": [
            ("dx lacks the adapter's path: A and B are never trained, but x goes through them", lambda i: i.dy @ i.W),
            ("dx lacks the base's path", lambda i: i.right["dx"] - i.dy @ i.W),
            ("λ_b is missing on the adapter's path", lambda i: i.dy @ i.W + (i.lambda_d * dw(i, 1.0)) @ i.A),
            ("λ_d is missing on the adapter's path", lambda i: i.dy @ i.W + dw(i) @ i.A),
            ("λ_d and λ_b are missing on the adapter's path", lambda i: i.dy @ i.W + dw(i, 1.0) @ i.A),
            ("λ_b multiplies the base's path, too", lambda i: (i.lambda_b * i.dy) @ i.W + (i.lambda_d * dw(i)) @ i.A),
            ("the adapter's path is subtracted", lambda i: 2 * i.dy @ i.W - i.right["dx"]),
        ],
        "dlambda_d": [
            ("λ_b is missing: it stands between dy and B", lambda i: np.sum(dw(i, 1.0) * (i.x @ i.A.T), axis=0)),
            (
                "λ_d stands in its own gradient: v = x Aᵀ is its partner, not λ_d ⊙ v",
                lambda i: i.lambda_d * i.right["dlambda_d"],
            ),
            (
                "λ_d stands in its own gradient, and λ_b is missing",
                lambda i: i.lambda_d * np.sum(dw(i, 1.0) * (i.x @ i.A.T), axis=0),
            ),
            ("v = x Aᵀ is missing", lambda i: dw(i).sum(axis=0)),
            ("it is summed over the rows before the product", lambda i: dw(i).sum(axis=0) * (i.x @ i.A.T).sum(axis=0)),
            (
                "rows of dA are added up: λ_d multiplies v, not A's numbers one by one",
                lambda i: (dw(i).T @ i.x).sum(axis=1),
            ),
        ],
        "dlambda_b": [
            ("λ_d is missing in z", lambda i: np.sum(i.dy * inner(i, 1.0), axis=0)),
            (
                "λ_b stands in its own gradient: z is its partner, not λ_b ⊙ z",
                lambda i: i.lambda_b * i.right["dlambda_b"],
            ),
            (
                "λ_b stands in its own gradient, and λ_d is missing",
                lambda i: i.lambda_b * np.sum(i.dy * inner(i, 1.0), axis=0),
            ),
            ("z is missing: this is a bias's gradient", lambda i: i.dy.sum(axis=0)),
            ("it is summed over the rows before the product", lambda i: i.dy.sum(axis=0) * inner(i).sum(axis=0)),
            (
                "the base's output stands in it: λ_b multiplies z alone",
                lambda i: np.sum(i.dy * (i.x @ i.W.T + inner(i)), axis=0),
            ),
        ],
    },
    hints={
        "dx": "x reaches y along two paths. Which four things does the second lead through, and in which order?",
        "dlambda_d": "w_nk = λ_d,k v_nk: one number multiplies column k of v in all rows. What is upstream of w?",
        "dlambda_b": "y_no has λ_b,o z_no in it. In how many rows does λ_b,o stand, and with which factor?",
    },
    formula="v = x Aᵀ,  z = (λ_d ⊙ v) Bᵀ\n"
    "dλ_b = Σ_n dy ⊙ z\n"
    "dw = (λ_b ⊙ dy) B,  dλ_d = Σ_n dw ⊙ v\n"
    "dx = dy W + (λ_d ⊙ dw) A",
)

# ---------------------------------------------------------------- DoRA, forward


def draw_dora(rng, size):
    """In the midst of training: B is not zero, and m is not the length of W's rows any more."""
    W = rng.normal(size=(size.n_out, size.n_in))
    return {
        "x": rng.normal(size=(size.N, size.n_in)),
        "W": W,
        "b": rng.normal(size=size.n_out),
        "A": rng.normal(size=(size.r, size.n_in)),
        "B": rng.normal(size=(size.n_out, size.r)),
        "m": dora.row_norms(W) * rng.uniform(0.5, 1.5, size.n_out),
        "s": size.alpha / size.r,
    }


def right_dora(x, W, b, A, B, m, s):
    return dora.forward(x, W, b, {"lora_A": A, "lora_B": B, dora.MAGNITUDE: m}, config_of(len(A), s, kind="dora"))[0]


def lengths(V):
    return dora.row_norms(V)[:, None]


def V_of(i, s=None):
    return i.W + (i.s if s is None else s) * i.B @ i.A


def through(i, W_tuned, b=None):
    return i.x @ W_tuned.T + (i.b if b is None else b)


def set_to_m(i, V, norms=None):
    return i.m[:, None] * V / (lengths(V) if norms is None else norms)


DORA_FORWARD = Item(
    name="dora_forward",
    arguments="x, W, b, A, B, m, s",
    outputs=("y",),
    task="DoRA's output: the rows of W + s B A, each set to a length of its own.",
    draw=draw_dora,
    right=right_dora,
    mistakes={
        "y": [
            ("this is LoRA: the rows have the lengths that they happen to have", lambda i: through(i, V_of(i))),
            ("the rows are brought to length 1, and m is missing", lambda i: through(i, V_of(i) / lengths(V_of(i)))),
            (
                "the rows are multiplied by m, and not brought to length 1 before",
                lambda i: through(i, i.m[:, None] * V_of(i)),
            ),
            (
                "m is divided by the lengths of W's rows, not by those of V's",
                lambda i: through(i, set_to_m(i, V_of(i), lengths(i.W))),
            ),
            (
                "the lengths are those of columns: each row, one for an output, has a length of its own",
                lambda i: through(i, set_to_m(i, V_of(i), np.linalg.norm(V_of(i), axis=0))),
            ),
            (
                "all rows are divided by the length of the whole matrix",
                lambda i: through(i, set_to_m(i, V_of(i), np.linalg.norm(V_of(i)))),
            ),
            (
                "the lengths are squared: the root is missing",
                lambda i: through(i, set_to_m(i, V_of(i), lengths(V_of(i)) ** 2)),
            ),
            (
                "the sum of a row's magnitudes stands where its length belongs",
                lambda i: through(i, set_to_m(i, V_of(i), np.abs(V_of(i)).sum(axis=1, keepdims=True))),
            ),
            (
                "a row's largest magnitude stands where its length belongs",
                lambda i: through(i, set_to_m(i, V_of(i), np.abs(V_of(i)).max(axis=1, keepdims=True))),
            ),
            (
                "a mean of squares stands where their sum belongs",
                lambda i: through(i, set_to_m(i, V_of(i), lengths(V_of(i)) / np.sqrt(i.W.shape[1]))),
            ),
            ("s is missing in V = W + s B A", lambda i: through(i, set_to_m(i, V_of(i, 1.0)))),
            ("B A is missing in V: these are the rows of W, set to m", lambda i: through(i, set_to_m(i, i.W))),
            ("W is missing in V = W + s B A", lambda i: through(i, set_to_m(i, V_of(i) - i.W))),
            (
                "only W's rows are set to m: s B A is a part of V, and has to go through it, too",
                lambda i: through(i, set_to_m(i, i.W) + i.s * i.B @ i.A),
            ),
            (
                "only s B A's rows are set to m: W is a part of V, too",
                lambda i: through(i, i.W + set_to_m(i, i.s * i.B @ i.A)),
            ),
            ("the bias is missing", lambda i: i.right["y"] - i.b),
            (
                "the bias is multiplied by m/‖V‖, too",
                lambda i: through(i, set_to_m(i, V_of(i)), i.b * i.m / lengths(V_of(i))[:, 0]),
            ),
            (
                "the rows of x are brought to length 1, too",
                lambda i: (i.x / lengths(i.x)) @ set_to_m(i, V_of(i)).T + i.b,
            ),
        ]
    },
    hints={"y": "Which length has a row of W′ to have, whatever A and B are? Which length has it in V?"},
    formula="V = W + s B A;  W′ = m ⊙ V / ‖V‖, row by row;  y = x W′ᵀ + b",
)

# ---------------------------------------------------------------- DoRA, backward


def draw_dora_backward(rng, size):
    """V as it is, for what it is made of plays no part here."""
    layer = draw_dora(rng, size)
    dy = rng.normal(size=(size.N, size.n_out))
    return {"dy": dy, "x": layer["x"], "V": V_of_parts(**layer), "m": layer["m"]}


def V_of_parts(W, A, B, s, **others):
    return W + s * B @ A


def right_dora_backward(dy, x, V, m):
    """The package's gradient of the weight where the adapter adds nothing to it, so that V is the weight."""
    (n_out, n_in), config = V.shape, config_of(1, 1.0, kind="dora", norm_gradient=True)
    adapter = {"lora_A": np.zeros((1, n_in)), "lora_B": np.zeros((n_out, 1)), dora.MAGNITUDE: m}
    _, cache = dora.forward(x, V, None, adapter, config, wanted=("x", "weight", dora.MAGNITUDE))
    dx, grads = dora.backward(dy, cache)
    return dx, grads["weight"], grads[dora.MAGNITUDE]


def dW(i):
    """The gradient of W′."""
    return i.dy.T @ i.x


def unit(i):
    return i.V / lengths(i.V)


def dV(i, along=None, front=None):
    """m/‖V‖ times dW′ less a part of it."""
    front = i.m[:, None] / lengths(i.V) if front is None else front
    return front * (dW(i) - (part_along(i) if along is None else along))


def part_along(i, one=None, other=None, axis=1):
    """(dW′ · v̂) v̂ of each row, with something else for one v̂ or the other."""
    one, other = (unit(i) if one is None else one), (unit(i) if other is None else other)
    return np.sum(dW(i) * one, axis=axis, keepdims=True) * other


DORA_BACKWARD = Item(
    name="dora_backward",
    arguments="dy, x, V, m",
    outputs=("dx", "dV", "dm"),
    task="The exact gradients of y = x W′ᵀ, where W′ has V's directions and the lengths m.",
    draw=draw_dora_backward,
    right=right_dora_backward,
    factors=lambda i: {"N (the rows)": i.size.N, "2": 2.0},
    mistakes={
        "dx": [
            ("it has gone back through V, which is not what x went through", lambda i: i.dy @ i.V),
            ("m is missing: it has gone back through the directions alone", lambda i: i.dy @ unit(i)),
            ("it has gone back through m ⊙ V: the division by ‖V‖ is missing", lambda i: (i.dy * i.m) @ i.V),
            (
                "it has gone back through m ⊙ V / ‖V‖²: the root is missing",
                lambda i: i.dy @ (i.m[:, None] * i.V / lengths(i.V) ** 2),
            ),
            (
                "it has gone back through columns of length 1, and it is rows that have a length",
                lambda i: i.dy @ (i.m[:, None] * i.V / np.linalg.norm(i.V, axis=0)),
            ),
        ],
        "dV": [
            (
                "the way through ‖V‖ is missing: with ‖V‖ held constant this is the gradient of DoRA's paper, and here "
                "it is to be the exact one",
                lambda i: dV(i, along=0.0),
            ),
            ("this is the gradient of W′, not yet taken back through m ⊙ V / ‖V‖", dW),
            (
                "this is the part along each row: what is left without it is wanted",
                lambda i: dV(i, along=dW(i) - part_along(i)),
            ),
            ("the part along each row is added, not taken off", lambda i: dV(i, along=-part_along(i))),
            ("the part along each row is taken off twice", lambda i: dV(i, along=2 * part_along(i))),
            (
                "m is missing: the longer a row of W′, the more a turn of V moves it",
                lambda i: dV(i, front=1 / lengths(i.V)),
            ),
            (
                "the division by ‖V‖ is missing in front: the longer a row of V, the less the same step turns it",
                lambda i: dV(i, front=i.m[:, None]),
            ),
            ("m/‖V‖ is missing in front", lambda i: dV(i, front=1.0)),
            ("it is divided by ‖V‖² in front", lambda i: dV(i, front=i.m[:, None] / lengths(i.V) ** 2)),
            (
                "m/‖V‖ stands in front of dW′ alone, and not of the part that is taken off",
                lambda i: dV(i, along=0.0) - part_along(i),
            ),
            ("in the part that is taken off neither V is divided by ‖V‖", lambda i: dV(i, part_along(i, i.V, i.V))),
            (
                "in the part that is taken off only one of the two V's is divided by ‖V‖",
                lambda i: dV(i, part_along(i, i.V)),
            ),
            (
                "the part that is taken off is that along the columns, not along the rows",
                lambda i: dV(i, part_along(i, axis=0)),
            ),
            (
                "the part that is taken off is that along V as one long vector, not along each row",
                lambda i: dV(i, part_along(i, axis=(0, 1))),
            ),
            (
                "the part that is taken off is that along V as one long vector, not along each row",
                lambda i: dV(i, np.sum(dW(i) * i.V) * i.V / np.sum(i.V**2)),
            ),
            (
                "each number of a row is taken for itself: its part along v̂ is made of all numbers of the row",
                lambda i: dV(i, dW(i) * unit(i) ** 2),
            ),
            (
                "the mean of each row is taken off, as in layer norm: what counts here is the length alone",
                lambda i: dV(i, dW(i).mean(axis=1, keepdims=True)),
            ),
        ],
        "dm": [
            ("V is not divided by ‖V‖", lambda i: np.sum(dW(i) * i.V, axis=1)),
            (
                "V is divided by ‖V‖²: the root is missing",
                lambda i: np.sum(dW(i) * i.V, axis=1) / dora.row_norms(i.V) ** 2,
            ),
            ("it is multiplied by m: this is the product of dW′ with W′", lambda i: i.m * i.right["dm"]),
            ("it is divided by m", lambda i: i.right["dm"] / i.m),
            (
                "this is the length of each row of dW′: only what lies along the row stretches it",
                lambda i: dora.row_norms(dW(i)),
            ),
            ("this is a bias's gradient, dy added up over the rows: m multiplies v̂", lambda i: i.dy.sum(axis=0)),
            (
                "it is summed over the rows before the product",
                lambda i: i.dy.sum(axis=0) * (i.x @ unit(i).T).sum(axis=0),
            ),
        ],
    },
    hints={
        "dx": "Which matrix has x gone through?",
        "dV": "Move a row of V along itself: what becomes of W′? Move it across: how far does the row of W′ turn?",
        "dm": "W′ = m v̂, row by row. How much does L change if a row of W′ grows by a unit of its own direction?",
    },
    formula="v̂ = V / ‖V‖, row by row;  dW′ = dyᵀ x\n"
    "dx = dy (m ⊙ v̂)\n"
    "dm = dW′ · v̂\n"
    "dV = (m / ‖V‖) ⊙ (dW′ − (dW′ · v̂) v̂)",
)
