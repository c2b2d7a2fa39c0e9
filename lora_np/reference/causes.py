"""What a port has probably done, judged by the first tensor that diverges.

First this package makes each known mistake itself (`mistakes.py`, `wrong.py`). A mistake that leaves all earlier
tensors right and gives the port's numbers for this one is the likely cause; if several do, the later tensors decide. If
none fits, `looks` describes the tensor itself: a factor, a sign, another order, another tensor.
"""

import math

import numpy as np

from .looks import looks
from .mistakes import MISTAKES
from .tolerances import RTOL, rms, shares
from .wrong import wrong_outputs

MOST = 3  # sentences
WIDER = 8.0  # times a tensor's tolerance: a port with a mistake rounds differently from the package with it


def likely_causes(entry, reference, got, tensor, dtype):
    """Sentences on what is wrong, the likeliest first.

    Parameters
    ----------
    entry : dict, the case in the manifest
    reference : dict, name -> array, the case's inputs and outputs
    got : dict, name -> array, the port's outputs
    tensor : str, the first that diverges
    dtype : "float64" or "float32"
    """
    atol = {record["name"]: record[dtype].get("atol") for record in entry["tensors"]}  # None: of an input
    if atol[tensor] is None:
        return ["an input comes back with other numbers, and everything after it was computed from those"]
    sentences = known_mistakes(entry, atol, reference, got, tensor, dtype)
    if sentences:
        return sentences
    others = {name: array for name, array in reference.items() if name != tensor}
    return looks(reference[tensor], got[tensor], dtype, others, named_factors(entry["settings"], reference))


def known_mistakes(entry, atol, reference, got, tensor, dtype):
    """The sentences of the mistakes that explain the tensor best."""
    inputs = {name: array for name, array in reference.items() if atol[name] is None}
    outputs = [name for name in atol if name not in inputs]

    def same(a, b, name):
        return a is not None and b is not None and a.shape == b.shape and agrees(a, b, atol[name], dtype)

    settings = entry["settings"]
    if entry["kind"] == "train":
        settings = {**settings, "until": int(tensor.split(".")[1])}  # of step.10.loss
    scores = {}
    for mistake in MISTAKES:
        try:
            made = wrong_outputs(mistake, entry["kind"], settings, inputs, dtype)
        except Exception:
            continue  # this case's shapes or numbers make the mistake impossible
        first = next((n for n in outputs if not same(made.get(n), reference[n], n)), None)
        if first == tensor and same(got[tensor], made.get(tensor), tensor):
            scores[mistake] = sum(same(got.get(n), made.get(n), n) for n in outputs[outputs.index(tensor) :])
    best = max(scores.values(), default=0)
    return [mistake for mistake, score in scores.items() if score == best][:MOST]


def agrees(a, b, atol, dtype):
    """Whether two arrays are equal up to rounding, which is as large as the numbers that a mistake makes."""
    rtol = RTOL[dtype] if atol else 0.0
    return not (shares(a, b, WIDER * (atol + rtol * rms(b)), WIDER * rtol) > 1).any()


def named_factors(settings, reference):
    """Quantities of the case by name: a gradient is often off by one of them."""
    factors = {"2": 2.0}
    r, alpha = settings.get("r"), settings.get("alpha")
    if r and alpha:
        factors |= {"r": r, "α": alpha, "α/r": alpha / r, "√r": math.sqrt(r)}
    sizes = settings.get("model", settings)
    H = sizes.get("n_heads")
    if H:
        D = sizes.get("d_model", reference.get("q", np.empty(0)).shape[-1]) / H
        factors |= {"√D": math.sqrt(D), "D": D, "H": H}
    leading = next((reference[name].shape for name in ("ids", "x", "q") if name in reference), ())
    factors |= dict(zip("BT", leading))
    if "targets" in reference:
        factors["N (the real targets)"] = int((reference["targets"] != -100).sum())
    return factors
