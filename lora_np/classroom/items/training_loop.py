"""Set 06, second part: one step of AdamW, and the project, LoRA on one layer trained until it can do no better."""

import math

import numpy as np

from ...adapters import AdapterConfig, lora
from ...analysis import random_directions, singular_values
from ...training import AdamW, adamw_update
from ..item import Item

# ---------------------------------------------------------------- AdamW


def draw_adamw(rng, size):
    """A matrix in the first draw and a bias in the second; ε is large, so that it shows where it stands."""
    shape = {2: (size.n_out, size.n_in), 3: (size.C,)}[size.r]
    p, g, m = (rng.normal(size=shape) for _ in range(3))
    v = rng.uniform(0.5, 1.5, shape)
    beta1, beta2, eps, weight_decay = {2: (0.8, 0.95, 0.1, 0.3), 3: (0.7, 0.9, 0.2, 0.5)}[size.r]
    settings = {"lr": 0.01 * size.n_in, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay}
    return {"p": p, "g": g, "m": m, "v": v, "step": size.N, **settings}


def right_adamw(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    config = AdamW(beta1, beta2, eps, weight_decay)
    return tuple(found["p"] for found in adamw_update({"p": p}, {"p": g}, {"p": m}, {"p": v}, step, lr, config))


def moments(i, g=None, beta1=None, beta2=None):
    """New m and v, of another gradient or with other betas."""
    g, beta1, beta2 = (i.g if g is None else g), beta1 or i.beta1, beta2 or i.beta2
    return beta1 * i.m + (1 - beta1) * g, beta2 * i.v + (1 - beta2) * g**2


def moved(i, m=None, v=None, m_hat=None, v_hat=None, bottom=None, shrink=None, step=None):
    """New p, with some of what stands in its formula replaced."""
    new_m, new_v = moments(i)
    m, v, step = (new_m if m is None else m), (new_v if v is None else v), step or i.step
    m_hat = m / (1 - i.beta1**step) if m_hat is None else m_hat
    v_hat = v / (1 - i.beta2**step) if v_hat is None else v_hat
    bottom = np.sqrt(v_hat) + i.eps if bottom is None else bottom
    return (decay(i) if shrink is None else shrink) * i.p - i.lr * m_hat / bottom


def decay(i, sign=1):
    return 1 - sign * i.lr * i.weight_decay if i.p.ndim > 1 else 1.0


def corrected(i):
    """m̂ and v̂."""
    m, v = moments(i)
    return m / (1 - i.beta1**i.step), v / (1 - i.beta2**i.step)


def followed_on(i, outputs):
    """A mistake in m or v costs once: p is right, too, if it is what follows from the student's own m and v."""
    p, m, v = (np.asarray(outputs[name], dtype=float) for name in ("p", "m", "v"))
    if not p.shape == m.shape == v.shape == i.p.shape:
        return outputs
    with np.errstate(all="ignore"):
        if np.allclose(p, moved(i, m, v), rtol=1e-9, atol=1e-12):
            return {**outputs, "p": moved(i)}
    return outputs


def with_l2(i):
    return moments(i, i.g + i.weight_decay * i.p)


ADAMW = Item(
    name="adamw_step",
    arguments="p, g, m, v, step, lr, beta1, beta2, eps, weight_decay",
    outputs=("p", "m", "v"),
    task="One step of AdamW on one array.",
    draw=draw_adamw,
    right=right_adamw,
    compared=followed_on,
    factors=lambda i: {
        "lr": i.lr,
        "β₁": i.beta1,
        "β₂": i.beta2,
        "1 − β₁": 1 - i.beta1,
        "1 − β₂": 1 - i.beta2,
        "1 − β₁ᵗ: the corrected one is returned, and would be corrected again at the next step": 1 - i.beta1**i.step,
        "1 − β₂ᵗ: the corrected one is returned, and would be corrected again at the next step": 1 - i.beta2**i.step,
    },
    mistakes={
        "p": [
            (
                "neither moment is corrected for its start at zero",
                lambda i: moved(i, m_hat=moments(i)[0], v_hat=moments(i)[1]),
            ),
            ("m is not corrected for its start at zero", lambda i: moved(i, m_hat=moments(i)[0])),
            ("v is not corrected for its start at zero", lambda i: moved(i, v_hat=moments(i)[1])),
            (
                "in the corrections β has lost its exponent t",
                lambda i: moved(i, m_hat=moments(i)[0] / (1 - i.beta1), v_hat=moments(i)[1] / (1 - i.beta2)),
            ),
            ("the corrections use t − 1: the first step has t = 1", lambda i: moved(i, step=i.step - 1)),
            ("the corrections use t + 1", lambda i: moved(i, step=i.step + 1)),
            ("p has moved by the old m and v, not by the new ones", lambda i: moved(i, i.m, i.v)),
            ("p has moved by the old m, not by the new one", lambda i: moved(i, m=i.m)),
            ("p has moved by the old v, not by the new one", lambda i: moved(i, v=i.v)),
            ("the gradient itself stands where its mean m̂ belongs", lambda i: moved(i, m_hat=i.g)),
            ("the root of v̂ is missing", lambda i: moved(i, bottom=corrected(i)[1] + i.eps)),
            (
                "ε stands under the root, where it belongs beside it",
                lambda i: moved(i, bottom=np.sqrt(corrected(i)[1] + i.eps)),
            ),
            (
                "ε stands beside √v, where it belongs beside √v̂",
                lambda i: moved(i, bottom=(np.sqrt(moments(i)[1]) + i.eps) / math.sqrt(1 - i.beta2**i.step)),
            ),
            ("ε is missing", lambda i: moved(i, bottom=np.sqrt(corrected(i)[1]))),
            ("the weight decay is missing", lambda i: moved(i, shrink=1.0)),
            ("the weight decay is not multiplied by the learning rate", lambda i: moved(i, shrink=1 - i.weight_decay)),
            ("p grows by the weight decay, where it should shrink", lambda i: moved(i, shrink=decay(i, -1))),
            (
                "the weight decay is divided by √v̂ as the gradient is; AdamW keeps it apart",
                lambda i: moved(i, m_hat=corrected(i)[0] + i.weight_decay * i.p, shrink=1.0),
            ),
            (
                "the weight decay has gone into the moments, and p itself does not shrink",
                lambda i: moved(i, *with_l2(i), shrink=1.0),
            ),
            ("p shrinks after its move, and the move with it", lambda i: decay(i) * moved(i, shrink=1.0)),
            (
                "biases shrink, too: weight decay is for arrays of two axes or more",
                lambda i: moved(i, shrink=1 - i.lr * i.weight_decay),
            ),
            ("p goes uphill: the move is added", lambda i: 2 * decay(i) * i.p - moved(i)),
            ("the learning rate is missing in the move", lambda i: decay(i) * i.p + (moved(i, shrink=0.0) / i.lr)),
            ("this is gradient descent: p − lr g", lambda i: i.p - i.lr * i.g),
            ("this is the move alone, without p", lambda i: moved(i, shrink=0.0)),
            ("p has not moved", lambda i: i.p),
        ],
        "m": [
            (
                "the two shares are exchanged: most of the old m is to be kept",
                lambda i: moments(i, beta1=1 - i.beta1)[0],
            ),
            ("the new gradient's share 1 − β₁ is missing: this is a sum, not a mean", lambda i: i.beta1 * i.m + i.g),
            ("the old m is kept in full", lambda i: i.m + (1 - i.beta1) * i.g),
            ("m is made with β₂", lambda i: moments(i, beta1=i.beta2)[0]),
            (
                "the weight decay has gone into the gradient: that is Adam with an L2 penalty; AdamW keeps it apart",
                lambda i: with_l2(i)[0],
            ),
            ("m has not moved", lambda i: i.m),
            ("the old m is missing", lambda i: (1 - i.beta1) * i.g),
        ],
        "v": [
            ("the gradient is not squared", lambda i: i.beta2 * i.v + (1 - i.beta2) * i.g),
            (
                "the gradient's absolute value stands where its square belongs",
                lambda i: i.beta2 * i.v + (1 - i.beta2) * np.abs(i.g),
            ),
            (
                "the two shares are exchanged: most of the old v is to be kept",
                lambda i: moments(i, beta2=1 - i.beta2)[1],
            ),
            ("the new square's share 1 − β₂ is missing: this is a sum, not a mean", lambda i: i.beta2 * i.v + i.g**2),
            ("the old v is kept in full", lambda i: i.v + (1 - i.beta2) * i.g**2),
            ("v is made with β₁", lambda i: moments(i, beta2=i.beta1)[1]),
            (
                "the square of m stands where that of the gradient belongs",
                lambda i: i.beta2 * i.v + (1 - i.beta2) * moments(i)[0] ** 2,
            ),
            (
                "the share 1 − β₂ is squared along with the gradient",
                lambda i: i.beta2 * i.v + ((1 - i.beta2) * i.g) ** 2,
            ),
            (
                "all elements share one mean square, where each has its own",
                lambda i: i.beta2 * i.v + (1 - i.beta2) * np.mean(i.g**2),
            ),
            (
                "the weight decay has gone into the gradient: that is Adam with an L2 penalty; AdamW keeps it apart",
                lambda i: with_l2(i)[1],
            ),
            ("v has not moved", lambda i: i.v),
            ("the old v is missing", lambda i: (1 - i.beta2) * i.g**2),
        ],
    },
    hints={
        "p": "Two things happen to p: it shrinks a little, if it is a matrix, and it moves. Which m and v say how far?",
        "m": "A running mean: most of the old one, a little of the new gradient, and both shares together are 1.",
        "v": "The same kind of mean as m, with its own β, of another quantity of the gradient.",
    },
    formula="m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²\n"
    "m̂ = m / (1 − β₁ᵗ),  v̂ = v / (1 − β₂ᵗ)\n"
    "p ← p − lr λ p − lr m̂ / (√v̂ + ε),  with λ p for arrays of two axes or more alone",
)

# ---------------------------------------------------------------- the project


def draw_fit(rng, size):
    """A planted ΔW: r strong directions, and many weak ones that no adapter of rank r can have as well."""
    N, n_in, n_out, r = 10 * size.N, 2 * size.n_in, 2 * size.n_out, size.r
    n = min(n_in, n_out)
    sigma = np.append(np.linspace(3.0, 2.0, r), np.full(n - r, 0.4))
    delta = random_directions(n_out, n, rng) * sigma @ random_directions(n_in, n, rng).T
    x, W = rng.normal(size=(N, n_in)), rng.normal(size=(n_out, n_in))
    settings = {"r": r, "steps": 200, "lr": 0.1, "rng": np.random.default_rng(r)}
    return {"x": x, "target": x @ (W + delta).T, "W": W, **settings}


def outputs_of(i, A, B, W=None):
    config = AdapterConfig(r=i.r, alpha=i.r)  # s = 1
    return lora.forward(i.x, i.W if W is None else W, None, {"lora_A": A, "lora_B": B}, config)[0]


def loss_of(i, y):
    return float(np.sum((y - i.target) ** 2) / (2 * len(i.x)))


def bounds(i):
    """The loss without an adapter, and the lowest at rank r: what y lacks, x ΔWᵀ, cut to rank r (Eckart–Young)."""
    energy = singular_values(i.target - i.x @ i.W.T) ** 2 / (2 * len(i.x))
    return float(energy.sum()), float(energy[i.r :].sum())


def fit_properties(i, outputs):
    A, B = (np.asarray(outputs[name], dtype=np.float64) for name in ("A", "B"))
    problem = problem_of_form(i, A, B)
    if problem:
        return {"A, B": problem, **dict.fromkeys(("half way down", "within 5 %"), "there is no loss to look at")}
    with np.errstate(all="ignore"):
        loss = loss_of(i, outputs_of(i, A, B))
        start, best = bounds(i)
        if loss <= 1.05 * best:
            return {"A, B": None, "half way down": None, "within 5 %": None}
        told = (
            f"the loss is {loss:.4g}; without an adapter it is {start:.4g}, and {best:.4g} is possible at this rank"
            f"{what_it_looks_like(i, A, B, loss, start, best)}"
        )
    if loss <= (start + best) / 2:
        return {"A, B": None, "half way down": None, "within 5 %": told}
    return {"A, B": None, "half way down": told, "within 5 %": "that is further still"}


def problem_of_form(i, A, B):
    if A.shape != (i.r, i.x.shape[1]):
        return f"A has shape {A.shape}, expected (r, in) = {(i.r, i.x.shape[1])}"
    if B.shape != (len(i.W), i.r):
        return f"B has shape {B.shape}, expected (out, r) = {(len(i.W), i.r)}"
    if not (np.isfinite(A).all() and np.isfinite(B).all()):
        return (
            "they hold NaN or infinity, the training has run away: is every gradient that of the mean over the "
            "rows, and does each step go downhill?"
        )
    if not A.any() and not B.any():
        return "both are zero, and then neither has a gradient: nothing ever moves"
    if not B.any():
        return "B is zero: it has never moved"
    return None


def what_it_looks_like(i, A, B, loss, start, best):
    """A guess at why the loss is too high, from where the training has ended; or nothing."""
    if np.linalg.matrix_rank(A) < i.r:
        return ". The rows of A depend on each other; rows that begin alike get the same gradient, and stay alike"
    change = i.x @ A.T @ B.T  # (N, out)
    without_W = loss_of(i, outputs_of(i, A, B, 0 * i.W))
    energy = singular_values(i.target) ** 2 / (2 * len(i.x))
    if without_W <= 1.05 * float(energy[i.r :].sum()):
        return ". It looks like B A alone, fitted to the target: x Wᵀ was not there in training"
    lacks = i.target - i.x @ i.W.T  # (N, out), what an adapter is to give
    factor = float(np.sum(lacks * change) / np.sum(change**2))
    if loss_of(i, i.x @ i.W.T + factor * change) <= 1.05 * best:
        return f". B A has the right directions, and is the right one times {1 / factor:.4g}"
    best_B = np.linalg.lstsq(i.x @ A.T, lacks, rcond=None)[0].T
    if loss <= 1.05 * loss_of(i, outputs_of(i, A, best_B)):
        return ". It looks like the best B for this A: has A gone anywhere, and along its own gradient?"
    best_u = np.linalg.lstsq(B, lacks.T, rcond=None)[0]  # (r, N)
    best_A = np.linalg.lstsq(i.x, best_u.T, rcond=None)[0].T
    if loss <= 1.05 * loss_of(i, outputs_of(i, best_A, B)):
        return ". It looks like the best A for this B: has B gone anywhere, and along its own gradient?"
    if loss > start:
        return ". Training has made it worse"
    return ". It would still fall: are the steps as long and as many as they should be, and both gradients right?"


FIT = Item(
    name="fit_lora",
    arguments="x, target, W, r, steps, lr, rng",
    outputs=("A", "B"),
    task="LoRA on one layer, trained by gradient descent until it is as good as its rank allows.",
    draw=draw_fit,
    right=lambda *inputs: None,
    properties=fit_properties,
    hints={
        "A, B": "Shapes and start are those of exercises 05. What does a factor do whose gradient is 0 at the start?",
        "half way down": "Hold dA and dB against centred differences of the loss. Do both factors move in every step?",
        "within 5 %": "Which gradient has y, if the loss is a mean over N rows? Print the loss: does it still fall?",
    },
    formula="y = x Wᵀ + u Bᵀ,  u = x Aᵀ,  dy = (y − target) / N\n"
    "dB = dyᵀ u,  dA = (dy B)ᵀ x\n"
    "A ← A − lr dA,  B ← B − lr dB,  from A ~ U(−1/√in, +1/√in) and B = 0",
)
