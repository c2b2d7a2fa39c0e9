"""Set 10, third part: LoRA on a base in int8, backward, and merged back into it."""

import numpy as np

from ...adapters import Adapter, lora, merge_in_format
from ...compress import Int8Weight, quantise_int8
from ..item import Item
from . import lora_layer
from .lora_layer import config_of, summed_first

# ---------------------------------------------------------------- the base


def draw_base(rng, size, layers=1):
    """A matrix in int8, with rows of different sizes, and an adapter."""
    W = rng.normal(size=(layers * size.n_out, layers * size.n_in)) * rng.uniform(0.5, 2.0, (layers * size.n_out, 1))
    quantised = quantise_int8(W)
    shapes = lora.shapes(*W.shape, size.r)
    A, B = (rng.normal(size=shape) for shape in shapes.values())
    scales = quantised.scales.astype(np.float64)
    return {"codes": quantised.codes.copy(), "scales": scales, "A": A, "B": B, "s": size.alpha / size.r}


def weight_of(codes, scales):
    """As the package holds it; the scales are float32 numbers."""
    return Int8Weight(codes, scales.astype(np.float32), codes.shape, np.dtype(np.float64))


def follows(codes, W, scales):
    """Whether codes are what a matrix has in these rulers, one for each row; beyond their ends, cut off or not."""
    marks = np.rint(W / np.where(scales != 0, scales, 1)[:, None])
    return np.array_equal(codes, marks) or np.array_equal(codes, np.clip(marks, -127, 127))


# ---------------------------------------------------------------- backward


def draw_backward(rng, size):
    rows = {"dy": rng.normal(size=(size.N, size.n_out)), "x": rng.normal(size=(size.N, size.n_in))}
    return {**rows, **draw_base(rng, size)}


def right_backward(dy, x, codes, scales, A, B, s):
    return lora_layer.right_backward(dy, x, weight_of(codes, scales), A, B, s)


def through_adapter(i):
    return i.s * i.dy @ i.B @ i.A


def with_base(i, dW_hat):
    """dx with something else than dy Ŵ for the base's path."""
    return dW_hat + through_adapter(i)


BACKWARD = Item(
    name="int8_lora_backward",
    arguments="dy, x, codes, scales, A, B, s",
    outputs=("dx", "dA", "dB"),
    task="The gradients of LoRA on a base that is held in eight bits.",
    draw=draw_backward,
    right=right_backward,
    factors=lambda i: {"α/r": i.s, "N (the number of rows)": i.size.N},
    mistakes={
        "dx": [
            (
                "the codes stand where the weights belong: their rows' scales are missing",
                lambda i: with_base(i, i.dy @ i.codes),
            ),
            ("the codes are divided by their rows' scales", lambda i: with_base(i, (i.dy / i.scales) @ i.codes)),
            ("the rows' scales are applied twice", lambda i: with_base(i, (i.dy * i.scales**2) @ i.codes)),
            (
                "the scales of the rows are averaged: each output has its own",
                lambda i: with_base(i, i.scales.mean() * i.dy @ i.codes),
            ),
            (
                "the rows' scales have reached the adapter's path, too: B and A are no codes",
                lambda i: (i.dy * i.scales) @ (i.codes + i.s * i.B @ i.A),
            ),
            ("dx lacks the adapter's path", lambda i: i.right["dx"] - through_adapter(i)),
            ("dx lacks the base's path: W is frozen, and x goes through it all the same", through_adapter),
            ("s is missing in the adapter's part of dx", lambda i: i.right["dx"] + (1 / i.s - 1) * through_adapter(i)),
            (
                "the adapter's part of dx is multiplied by s twice",
                lambda i: i.right["dx"] + (i.s - 1) * through_adapter(i),
            ),
            ("s multiplies the base's part of dx, too", lambda i: i.s * i.right["dx"] + (1 - i.s) * through_adapter(i)),
            ("the adapter's part of dx is subtracted", lambda i: i.right["dx"] - 2 * through_adapter(i)),
        ],
        "dA": [
            (
                "the rows' scales have got into du: z = s u Bᵀ knows nothing of them",
                lambda i: (i.s * (i.dy * i.scales) @ i.B).T @ i.x,
            ),
            ("dA is summed over the rows of x before the product", lambda i: summed_first(i.s * i.dy @ i.B, i.x)),
        ],
        "dB": [
            (
                "the rows' scales have got into dB: z = s u Bᵀ knows nothing of them",
                lambda i: i.s * (i.dy * i.scales).T @ (i.x @ i.A.T),
            ),
            ("dB is summed over the rows before the product", lambda i: summed_first(i.s * i.dy, i.x @ i.A.T)),
        ],
    },
    hints={
        "dx": "What is Ŵ_oi, in codes and scales? Along which two paths does x reach y?",
        "dA": "Does Ŵ stand anywhere between dy and A?",
        "dB": "Does Ŵ stand anywhere between dy and B?",
    },
    formula="dx = (dy ⊙ scales) codes + du A,  du = s dy B\ndA = duᵀ x\ndB = s dyᵀ u,  u = x Aᵀ",
)

# ---------------------------------------------------------------- merging back


def draw_merge(rng, size):
    """An update of some two steps of the base's rulers in the first draw, of less than half a step in the second."""
    base = draw_base(rng, size, layers=2)
    steps = {2: 2.0, 3: 0.4}[size.r]
    base["B"] *= steps * base["scales"].mean() / np.std(base["s"] * base["B"] @ base["A"])
    return base


def parts(A, B):
    return {"lora_A": A, "lora_B": B}


def right_merge(codes, scales, A, B, s):
    name, config = "blocks.0.attn.q_proj", config_of(len(A), s, targets=("q_proj",), train_head=False)
    adapter = Adapter(config, {f"{name}.{part}": array for part, array in parts(A, B).items()})
    merged = merge_in_format({f"{name}.weight": weight_of(codes, scales)}, adapter)
    quantised = merged.params[f"{name}.weight"]
    return quantised.codes, quantised.scales.astype(np.float64), merged.overall.update


def update(i):
    return lora.delta(None, parts(i.A, i.B), config_of(len(i.A), i.s))


def summed(i):
    """Ŵ + ΔW, in full."""
    return weight_of(i.codes, i.scales).dequantise() + update(i)


def lost_by(i, codes, scales):
    return np.linalg.norm(scales[:, None] * codes - summed(i)) / np.linalg.norm(update(i))


def by_own_codes(i, outputs):
    """A mistake costs once: codes are right if they follow from the student's scales, and what is lost from both."""
    codes, scales, lost = (outputs[name] for name in ("new_codes", "new_scales", "lost"))
    if codes is None or scales is None or np.shape(scales) != i.scales.shape or np.shape(codes) != i.codes.shape:
        return outputs
    right, kept = right_merge(i.codes, i.scales, i.A, i.B, i.s), dict(outputs)
    if follows(codes, summed(i), scales):
        kept["new_codes"] = right[0]
    if lost is not None and np.ndim(lost) == 0 and np.isclose(lost, lost_by(i, codes, scales), rtol=1e-9):
        kept["lost"] = np.float64(right[2])
    return kept


def again(i, dense):
    """Codes and scales of another sum."""
    quantised = quantise_int8(dense)
    return quantised.codes, quantised.scales.astype(np.float64)


def rulers(dense):
    """The scales as a student has them, in float64. The package's are float32, and what is lost would show it."""
    return np.abs(dense).max(axis=1, keepdims=True) / 127


def error(i, dense=None):
    """What rounding moves: of Ŵ + ΔW, or of another sum."""
    dense = summed(i) if dense is None else dense
    return rulers(dense) * quantise_int8(dense).codes - dense


def ratio(one, other, size=np.linalg.norm):
    return size(one) / size(other)


def without_s(i):
    return summed(i) + (1 / i.s - 1) * update(i)


def subtracted(i):
    return summed(i) - 2 * update(i)


def onto_codes(i):
    return i.codes + update(i)


MERGE = Item(
    name="merge_back",
    arguments="codes, scales, A, B, s",
    outputs=("new_codes", "new_scales", "lost"),
    task="An adapter merged into a base in eight bits, and how much of the update that loses.",
    draw=draw_merge,
    right=right_merge,
    compared=by_own_codes,
    mistakes={
        "new_codes": [
            ("nothing is merged: these are the old codes", lambda i: i.codes),
            ("s is missing in ΔW = s B A", lambda i: again(i, without_s(i))[0]),
            ("ΔW is subtracted: this is unmerging", lambda i: again(i, subtracted(i))[0]),
            ("these are the codes of ΔW alone", lambda i: again(i, update(i))[0]),
            (
                "the codes of the base and those of ΔW are added, which count in different steps",
                lambda i: i.codes + again(i, update(i))[0].astype(float),
            ),
            (
                "the old rulers are kept: the largest weight of a row may lie beyond their ends now",
                lambda i: np.rint(summed(i) / i.scales[:, None]),
            ),
            (
                "the old rulers are kept: the largest weight of a row may lie beyond their ends now",
                lambda i: np.clip(np.rint(summed(i) / i.scales[:, None]), -127, 127),
            ),
            ("they are cut off, not rounded", lambda i: np.trunc(summed(i) / rulers(summed(i)))),
            ("they are not rounded: a code is a whole number", lambda i: summed(i) / rulers(summed(i))),
        ],
        "new_scales": [
            ("these are the old scales: a row's largest weight has changed", lambda i: i.scales),
            ("s is missing in ΔW = s B A", lambda i: again(i, without_s(i))[1]),
            ("ΔW is subtracted: this is unmerging", lambda i: again(i, subtracted(i))[1]),
            ("these are the scales of ΔW alone", lambda i: again(i, update(i))[1]),
            (
                "the largest weight of the whole matrix sets one scale for all",
                lambda i: np.full(len(i.codes), rulers(summed(i)).max()),
            ),
            ("the scales of the base and those of ΔW are added", lambda i: i.scales + again(i, update(i))[1]),
            ("ΔW is added to the codes: those are counted in steps", lambda i: again(i, onto_codes(i))[1]),
            (
                "this is the largest magnitude of each row, not yet divided by 127",
                lambda i: 127 * i.right["new_scales"],
            ),
            (
                "the largest weight is taken, where the largest magnitude may be a negative weight's",
                lambda i: summed(i).max(axis=1) / 127,
            ),
        ],
        "lost": [
            ("it is taken relative to Ŵ + ΔW, not to the update", lambda i: ratio(error(i), summed(i))),
            ("it is taken relative to Ŵ, not to the update", lambda i: ratio(error(i), summed(i) - update(i))),
            ("it is in per cent", lambda i: 100 * ratio(error(i), update(i))),
            ("it is squared: this is a share of the energy", lambda i: ratio(error(i), update(i)) ** 2),
            ("it is not divided by ‖ΔW‖", lambda i: np.linalg.norm(error(i))),
            ("this is what is left, not what is lost", lambda i: 1 - ratio(error(i), update(i))),
            (
                "this says how far the weights have moved: Ŵ stands where Ŵ + ΔW belongs",
                lambda i: ratio(error(i) + update(i), update(i)),
            ),
            ("this is the share of codes that have changed", lambda i: np.mean(i.right["new_codes"] != i.codes)),
            ("this is the share of codes that are what they were", lambda i: np.mean(i.right["new_codes"] == i.codes)),
            (
                "these are means of magnitudes, not norms",
                lambda i: ratio(error(i), update(i), lambda array: np.abs(array).mean()),
            ),
            (
                "the largest entries stand where norms belong",
                lambda i: ratio(error(i), update(i), lambda array: np.abs(array).max()),
            ),
            ("it is ‖ΔW‖ over the error, the wrong way up", lambda i: ratio(update(i), error(i))),
            ("s is missing in ΔW = s B A", lambda i: i.s * ratio(error(i, without_s(i)), update(i))),
            ("s is missing in the ΔW that it is divided by", lambda i: i.s * ratio(error(i), update(i))),
            ("ΔW is subtracted: this is unmerging", lambda i: ratio(error(i, subtracted(i)), update(i))),
            (
                "ΔW is added to the codes: those are counted in steps",
                lambda i: ratio(error(i, onto_codes(i)), update(i)),
            ),
            ("nothing is said to be lost: has Ŵ + ΔW been compared with itself?", lambda i: 0.0),
        ],
    },
    hints={
        "new_codes": "Go back to weights, add, begin anew: what is a row's ruler then, and where do its weights lie?",
        "new_scales": "A ruler has to reach to the largest weight of its row. Which row is that now?",
        "lost": "What should have come out, and what has come out? How long is the difference beside ‖ΔW‖?",
    },
    formula="V = Ŵ + s B A,  Ŵ = scales ⊙ codes, row by row\n"
    "new_scales_o = max_i |V_oi| / 127,  new_codes = V / new_scales, rounded\n"
    "lost = ‖new_scales ⊙ new_codes − V‖ / ‖s B A‖",
)
