"""Set 09, adapters as parts: several in one batch, mixed, turned up and down. How the next token is chosen is in
`choosing.py`, and what needs the thin factors alone in `thin_updates.py`."""

from types import SimpleNamespace

import numpy as np

from ...adapters import Adapter, mix
from ...model.rows import RowGroup, rows_forward
from ..item import Item, Unfit
from .choosing import NEXT, NUCLEUS
from .lora_layer import config_of
from .thin_updates import COMPRESS, COSINE

# ---------------------------------------------------------------- a batch whose rows have adapters of their own

PATTERN = ("licences", None, "critics", "critics", None, "licences", "licences")


def draw_pair(rng, n_out, n_in, r):
    return rng.normal(size=(r, n_in)), rng.normal(size=(n_out, r))


def draw_rows(rng, size):
    """Each name comes again after another one, and the two adapters have other ranks and scales."""
    adapters = {
        "critics": (*draw_pair(rng, size.n_out, size.n_in, size.r), size.alpha / size.r),
        "licences": (*draw_pair(rng, size.n_out, size.n_in, size.r - 1), 0.4 * size.alpha),
    }
    return {
        "x": rng.normal(size=(2 * size.N, size.n_in)),
        "W": rng.normal(size=(size.n_out, size.n_in)),
        "b": rng.normal(size=size.n_out),
        "adapters": adapters,
        "names": [PATTERN[n % len(PATTERN)] for n in range(2 * size.N)],
    }


def right_rows(x, W, b, adapters, names):
    """The package's layer, in a forward pass that consists of it alone."""
    groups = []
    for name in dict.fromkeys(names):
        rows, parts, config = np.array([n for n, other in enumerate(names) if other == name]), {}, None
        if name is not None:
            A, B, s = adapters[name]
            parts, config = {"layer": {"lora_A": A, "lora_B": B}}, config_of(len(A), s)
        groups.append(RowGroup(rows, {"layer.weight": W}, config, parts))
    call = SimpleNamespace(params={"layer.weight": W, "layer.bias": b}, groups=groups)
    return rows_forward(x, "layer", call)


def as_named(i, names, adapters=None):
    """The layer's output with other names for the rows, or with other adapters under the names."""
    return right_rows(i.x, i.W, i.b, adapters or i.adapters, names)


def each(i, change):
    """Adapters of which each has gone through a change of (A, B, s)."""
    return {name: change(*parts) for name, parts in i.adapters.items()}


def base_of(i):
    return i.x @ i.W.T + i.b


def is_adapted(i):
    return np.array([name is not None for name in i.names])[:, None]


def all_at_once(i):
    """Every row with both adapters."""
    return base_of(i) + sum(s * i.x @ A.T @ B.T for A, B, s in i.adapters.values())


def in_groups(i, order):
    """The rows' right results, one group behind the other."""
    return i.right["y"][[n for name in order for n, other in enumerate(i.names) if other == name]]


ROWS = Item(
    name="rows_forward",
    arguments="x, W, b, adapters, names",
    outputs=("y",),
    task="A linear layer on a batch whose rows have adapters of their own.",
    draw=draw_rows,
    right=right_rows,
    factors=lambda i: {"2": 2.0},
    mistakes={
        "y": [
            ("this is the base's output: no row has its adapter", base_of),
            ("every row has the first row's adapter", lambda i: as_named(i, [i.names[0]] * len(i.names))),
            ("every row has the first of the adapters", lambda i: as_named(i, ["critics"] * len(i.names))),
            ("every row has all adapters at once", all_at_once),
            (
                "rows that should have none have the first of the adapters",
                lambda i: as_named(i, [name or "critics" for name in i.names]),
            ),
            (
                "rows that should have none have the last of the adapters",
                lambda i: as_named(i, [name or "licences" for name in i.names]),
            ),
            (
                "rows that should have none have the adapter of the row before",
                lambda i: as_named(i, [name or i.names[n - 1] or i.names[n - 2] for n, name in enumerate(i.names)]),
            ),
            ("rows without an adapter are 0: they have the base's output", lambda i: i.right["y"] * is_adapted(i)),
            (
                "rows with an adapter lack the base's part, x Wᵀ + b",
                lambda i: i.right["y"] - base_of(i) * is_adapted(i),
            ),
            ("the bias is missing", lambda i: i.right["y"] - i.b),
            ("the bias is missing in rows without an adapter", lambda i: i.right["y"] - i.b * ~is_adapted(i)),
            ("the bias is missing in rows with an adapter", lambda i: i.right["y"] - i.b * is_adapted(i)),
            ("the bias is added twice in rows with an adapter", lambda i: i.right["y"] + i.b * is_adapted(i)),
            ("the scale s is missing", lambda i: as_named(i, i.names, each(i, lambda A, B, s: (A, B, 1.0)))),
            ("the scale is at work twice", lambda i: as_named(i, i.names, each(i, lambda A, B, s: (A, B, s * s)))),
            (
                "all adapters have the first one's scale",
                lambda i: as_named(i, i.names, each(i, lambda A, B, s: (A, B, i.adapters["critics"][2]))),
            ),
            (
                "all adapters have the last one's scale",
                lambda i: as_named(i, i.names, each(i, lambda A, B, s: (A, B, i.adapters["licences"][2]))),
            ),
            (
                "the two adapters are exchanged",
                lambda i: as_named(i, [name and {"critics": "licences"}.get(name, "critics") for name in i.names]),
            ),
            (
                "only the last adapter's rows have one",
                lambda i: as_named(i, ["licences" if name == "licences" else None for name in i.names]),
            ),
            (
                "only the first adapter's rows have one",
                lambda i: as_named(i, ["critics" if name == "critics" else None for name in i.names]),
            ),
            (
                "the rows come out group by group, not in the order in which they came in",
                lambda i: in_groups(i, (None, "critics", "licences")),
            ),
            (
                "the rows come out group by group, not in the order in which they came in",
                lambda i: in_groups(i, ("critics", "licences", None)),
            ),
            (
                "the rows come out group by group, not in the order in which they came in",
                lambda i: in_groups(i, ("licences", None, "critics")),
            ),
        ]
    },
    hints={"y": "Which part of the result is the same calculation for every row? Which rows get something more?"},
    formula="y_n = x_n Wᵀ + b + s (x_n Aᵀ) Bᵀ with A, B, s of adapters[names[n]];  y_n = x_n Wᵀ + b where that is None",
)

# ---------------------------------------------------------------- a mix

LAYER = "blocks.0.attn.q_proj"


def draw_mix(rng, size):
    """Three adapters. In the second draw two ranks are equal and one is 1, so that even a sum of the factors, with what
    NumPy makes of it, is an array; and the weights stand in another order than the adapters."""
    ranks = {2: (2, 2, 2), 3: (3, 1, 3)}[size.r]
    scales = rng.uniform(0.5, 3.0, 3)
    names = ("critics", "licences", "praise")
    adapters = {
        name: (*draw_pair(rng, 3 * size.n_out, 3 * size.n_in, r), float(s)) for name, r, s in zip(names, ranks, scales)
    }
    return {"adapters": adapters, "weights": {"praise": -0.6, "critics": 0.5, "licences": 1.3}}


def right_mix(adapters, weights):
    """Of a model that is this one layer."""
    packed = {
        name: Adapter(config_of(len(A), s, targets=("q_proj",)), {f"{LAYER}.lora_A": A, f"{LAYER}.lora_B": B})
        for name, (A, B, s) in adapters.items()
    }
    A, B, _ = next(iter(adapters.values()))
    mixed = mix({f"{LAYER}.weight": np.zeros((len(B), A.shape[1]))}, packed, weights).weights
    return mixed[f"{LAYER}.lora_A"], mixed[f"{LAYER}.lora_B"]


def product_and_rank(i, outputs):
    A, B, most = outputs["A"], outputs["B"], sum(len(A) for A, _, _ in i.adapters.values())
    if A.ndim == 2 and len(A) > most:
        raise Unfit(f"A has {len(A)} rows, and the ranks add up to {most}: so many are enough")
    return {"B A": B @ A}


def mixed_by(i, of_A=lambda w, s: 1.0, of_B=lambda w, s: w * s, names=None):
    """Σ of_A of_B B A, over all adapters or some."""
    total = 0.0
    for name in names or i.adapters:
        (A, B, s), w = i.adapters[name], i.weights[name]
        total = total + of_A(w, s) * of_B(w, s) * B @ A
    return total


def factors_added(i, of_A=lambda w, s: 1.0, of_B=lambda w, s: w * s):
    parts = [(A, B, i.weights[name], s) for name, (A, B, s) in i.adapters.items()]
    return sum(of_B(w, s) * B for _, B, w, s in parts) @ sum(of_A(w, s) * A for A, _, w, s in parts)


def by_place(i):
    """The weights taken in their dict's order, whatever their names."""
    return sum(w * s * B @ A for (A, B, s), w in zip(i.adapters.values(), i.weights.values()))


def wrong_neighbours(i):
    """A's in one order, B's in another."""
    A = np.concatenate([A for A, _, _ in reversed(i.adapters.values())])
    return np.concatenate([i.weights[n] * s * B for n, (_, B, s) in i.adapters.items()], axis=1) @ A


ADDED = "the factors are added up, which brings in cross terms such as B₁ A₂"

MIX = Item(
    name="mix",
    arguments="adapters, weights",
    outputs=("A", "B"),
    task="One adapter, of scale 1, whose update is the weighted sum of several.",
    draw=draw_mix,
    right=right_mix,
    compared=product_and_rank,
    factors=lambda i: {"3, the number of adapters": 3.0, "the sum of the weights": sum(i.weights.values())},
    mistakes={
        "B A": [
            ("the scales are missing", lambda i: mixed_by(i, of_B=lambda w, s: w)),
            ("the weights are missing", lambda i: mixed_by(i, of_B=lambda w, s: s)),
            ("weights and scales are missing", lambda i: mixed_by(i, of_B=lambda w, s: 1.0)),
            ("the weights are at work twice, in A and in B", lambda i: mixed_by(i, of_A=lambda w, s: w)),
            ("the scales are at work twice, in A and in B", lambda i: mixed_by(i, of_A=lambda w, s: s)),
            ("weights and scales are at work twice, in A and in B", lambda i: mixed_by(i, of_A=lambda w, s: w * s)),
            ("the update is divided by the scales", lambda i: mixed_by(i, of_B=lambda w, s: w / s)),
            ("a weight's sign is lost", lambda i: mixed_by(i, of_B=lambda w, s: abs(w) * s)),
            ("the weights are taken in their dict's order: they belong to names", by_place),
            ("the A's and the B's stand in different orders", wrong_neighbours),
            ("only the first adapter is there", lambda i: mixed_by(i, names=["critics"])),
            ("only the last adapter is there", lambda i: mixed_by(i, names=["praise"])),
            (ADDED, factors_added),
            (ADDED, lambda i: factors_added(i, lambda w, s: w, lambda w, s: w)),
            (ADDED, lambda i: factors_added(i, lambda w, s: w, lambda w, s: w * s)),
            (ADDED, lambda i: factors_added(i, lambda w, s: w * s, lambda w, s: 1.0)),
            (ADDED, lambda i: factors_added(i, lambda w, s: w * s, lambda w, s: w * s)),
            (ADDED, lambda i: factors_added(i, lambda w, s: 1.0, lambda w, s: w)),
            (ADDED, lambda i: factors_added(i, lambda w, s: 1.0, lambda w, s: s)),
            (ADDED, lambda i: factors_added(i, lambda w, s: 1.0, lambda w, s: 1.0)),
        ]
    },
    hints={"B A": "Column by row, a product is a sum of outer products. Which should meet, and with what in front?"},
    formula="A = [A₁; A₂; …], one above the other;  B = [w₁ s₁ B₁, w₂ s₂ B₂, …], side by side",
)

# ---------------------------------------------------------------- turned up and down


def draw_weight(rng, size):
    """The lowest point lies between the measured ones, and in the second draw beyond them."""
    gain, bend, price, forgetting = {2: (0.9, 0.5, 1.4, 0.2), 3: (0.8, 0.25, 0.6, 0.1)}[size.r]
    w = np.array([0.0, 0.5, 1.0])
    new = 4.6 - gain * w + bend * w**2 + rng.uniform(-0.005, 0.005, 3)
    return {"new": new, "old": 4.3 + forgetting * w**2 + rng.uniform(-0.005, 0.005, 3), "price": price}


def lowest_of(losses):
    """Where the parabola through the losses at 0, ½ and 1 is lowest."""
    a, b, _ = np.polyfit([0.0, 0.5, 1.0], losses, 2)
    return -b / (2 * a)


def value_there(losses):
    return np.polyval(np.polyfit([0.0, 0.5, 1.0], losses, 2), lowest_of(losses))


def total(i):
    return i.new + i.price * i.old


WEIGHT = Item(
    name="best_weight",
    arguments="new, old, price",
    outputs=("w",),
    task="How far an adapter should be turned up, from three measurements.",
    draw=draw_weight,
    right=lambda new, old, price: lowest_of(new + price * old),
    mistakes={
        "w": [
            (
                "it is twice as much: is the 2 of −b/2a there, and do the measurements lie ½ apart?",
                lambda i: 2 * lowest_of(total(i)),
            ),
            ("it is half as much: do the measurements lie ½ apart?", lambda i: lowest_of(total(i)) / 2),
            ("the price is missing", lambda i: lowest_of(i.new + i.old)),
            ("the price is paid for the new text, not for the old one", lambda i: lowest_of(i.price * i.new + i.old)),
            ("only the new text counts", lambda i: lowest_of(i.new)),
            ("only the old text counts", lambda i: lowest_of(i.old)),
            ("what is forgotten counts as a gain", lambda i: lowest_of(i.new - i.price * i.old)),
            (
                "this is one of the three weights that were measured: the lowest point may lie between them, or "
                "beyond 1",
                lambda i: np.array([0.0, 0.5, 1.0])[np.argmin(total(i))],
            ),
            ("this is the number of a measurement, not a weight", lambda i: np.argmin(total(i))),
            ("this is the loss at the lowest point, not where that point is", lambda i: value_there(total(i))),
        ]
    },
    hints={"w": "What should be smallest? Which parabola goes through its three values, and where is its slope 0?"},
    formula="f = new + price · old;  w = (3 f₀ − 4 f_½ + f₁) / 4 (f₀ − 2 f_½ + f₁)",
)

ITEMS = (NEXT, NUCLEUS, ROWS, MIX, WEIGHT, COSINE, COMPRESS)
