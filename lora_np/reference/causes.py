"""What a port has probably done, from the first tensor that diverges.

First each known mistake is made (`plain/`): the one that leaves all earlier tensors as they are and gives the port's
numbers for this one is the likely cause. Several that do are told apart by the tensors after it. Where none fits, the
tensor itself is looked at: a factor, a sign, another order, another tensor.
"""

import math

import numpy as np

from .looks import looks
from .plain import MISTAKES, plain_outputs
from .tolerances import RTOL, off, rms

MOST = 3  # sentences
WIDER = 8.0  # than a tensor's tolerance, for a port with a mistake: it rounds elsewhere than the plain program


def likely_causes(entry, reference, got, tensor, dtype):
    """Sentences on what is wrong, the likeliest first.

    Parameters
    ----------
    entry : of the manifest
    reference : dict, name -> array, the case's inputs and outputs
    got : dict, name -> array, the port's outputs
    tensor : str, the first that diverges
    dtype : "float64" or "float32"
    """
    records = {record["name"]: record for record in entry["tensors"]}
    if records[tensor]["stage"] == "input":
        return ["an input is handed back with other numbers: what follows was computed from those"]
    found = known_mistakes(entry, records, reference, got, tensor, dtype)
    if found:
        return found
    others = {name: a for name, a in reference.items() if name != tensor}
    return looks(reference[tensor], got[tensor], dtype, others, named_factors(entry, reference))


# ---------------------------------------------------------------- known mistakes


def known_mistakes(entry, records, reference, got, tensor, dtype):
    inputs = {name: a for name, a in reference.items() if records[name]["stage"] == "input"}
    outputs = [name for name in records if name not in inputs]
    earlier, later = outputs[: outputs.index(tensor)], outputs[outputs.index(tensor) + 1 :]

    def same(a, b, name):
        return a is not None and a.shape == b.shape and agrees(a, b, records[name][dtype].get("atol", 0.0), dtype)

    settings = entry["settings"]
    if entry["kind"] == "train":
        settings = {**settings, "until": int(tensor.split(".")[1])}  # of step.10.loss
    scored = []
    for wrong, sentence in MISTAKES.items():
        try:
            made = plain_outputs(entry["kind"], settings, inputs, dtype, wrong)
        except (ArithmeticError, ValueError, IndexError, KeyError, np.linalg.LinAlgError):
            continue  # a mistake that this case's shapes or numbers make impossible
        if tensor not in made or same(made[tensor], reference[tensor], tensor):
            continue
        if same(got[tensor], made[tensor], tensor) and all(same(made.get(n), reference[n], n) for n in earlier):
            fits = sum(n in got and n in made and same(got[n], made[n], n) for n in later)
            scored.append((fits, sentence))
    best = max((fits for fits, _ in scored), default=0)
    return [sentence for fits, sentence in scored if fits == best][:MOST]


def agrees(a, b, atol, dtype):
    """Whether two arrays are equal but for rounding, which is at the size of the numbers that a mistake has made; NaN
    is equal to NaN here."""
    rtol, nan = RTOL[dtype] if atol else 0.0, np.isnan(b)
    same_nan = np.array_equal(np.isnan(a), nan)
    return same_nan and not off(a[~nan], b[~nan], WIDER * (atol + rtol * rms(b)), WIDER * rtol).any()


# ---------------------------------------------------------------- what a factor may stem from


def named_factors(entry, reference):
    """Quantities of the case by their names: a gradient is often off by one of them."""
    settings, shapes = entry["settings"], {name: a.shape for name, a in reference.items()}
    named = {"2": 2.0}
    r, alpha = settings.get("r"), settings.get("alpha")
    if r and alpha:
        named |= {"r": r, "α": alpha, "α/r": alpha / r, "√r": math.sqrt(r)}
    about = settings.get("model", {})
    heads, width = about.get("n_heads", settings.get("n_heads")), about.get("d_model")
    if heads and not width and "q" in shapes:
        width = shapes["q"][-1]
    if heads and width:
        D = width / heads
        named |= {"√D": math.sqrt(D), "D": D, "H": heads}
    leading = shapes.get("ids") or shapes.get("x") or shapes.get("q") or ()
    named |= dict(zip("BT", leading))
    if "targets" in reference:
        named["N (the real targets)"] = int((reference["targets"] != -100).sum())
    return named
