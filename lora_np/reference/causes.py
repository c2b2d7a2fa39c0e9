"""What a port has probably done, from the first tensor that diverges.

First each known mistake is made (`plain/`): the one that leaves all earlier tensors as they are and gives the port's
numbers for this one is the likely cause. Several that do are told apart by the tensors after it. Where none fits, the
tensor itself is looked at: a factor, a sign, another order, another tensor.
"""

import itertools
import math

import numpy as np

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
    with np.errstate(all="ignore"):
        return looks(entry, reference, got[tensor], tensor, dtype)


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


# ---------------------------------------------------------------- what a tensor looks like


def looks(entry, reference, got, tensor, dtype):
    """A sentence on how a tensor differs from what is expected."""
    right = reference[tensor].astype(np.float64)
    wrong = got.astype(np.float64)
    keep = np.isfinite(right)
    if not np.isfinite(wrong[keep]).all():
        return ["it holds NaN or infinity where numbers are expected: an overflow, 0/0, or memory that nothing wrote"]
    if not np.array_equal(wrong[~keep], right[~keep]):
        return ["it should be −inf where a key stands after its query; there it holds other numbers"]
    largest = np.abs(right[keep]).max(initial=0.0) or 1.0
    wrong, right = wrong / largest, right / largest  # so that no square overflows or vanishes
    a, b = wrong[keep], right[keep]
    size = rms(b)
    if size == 0.0:
        return ["it should be 0 throughout"]
    if not a.any():
        return ["it is 0 throughout: never computed, or cut off from what it depends on"]
    near = 1e-10 * size if dtype == "float64" else 1e-4 * size

    def close(x, y):
        return x.shape == y.shape and bool((np.abs(x - y) <= near).all())

    error = float(np.abs(a - b).max()) / size
    if error < 1e-2:
        guess = "some of it in float32, or " if dtype == "float64" and 1e-9 < error < 1e-5 else ""
        return [f"it is off by {error:.0e} of its size: {guess}a constant with too few digits, or a small term"]
    if close(a, -b):
        return ["its sign is reversed"]
    longest = np.abs(a).max()
    share = float(a / longest @ b / (b @ b))
    if b.size > 1 and close(a / longest, share * b):
        factor = share * longest
        return [f"it is the right value times {factor:.9g}{known_factor(factor, entry, reference)}"]
    shift = float((a - b).mean())
    if b.size > 1 and close(a, b + shift) and abs(shift) > near:
        return [f"it is the right value plus {shift * largest:.9g}, the same everywhere"]
    if right.ndim > 1:
        for axes in itertools.permutations(range(right.ndim)):
            turned = right.transpose(axes)
            if axes != tuple(range(right.ndim)) and (close(wrong, turned) or close(wrong, turned.reshape(right.shape))):
                return [f"it is the right value with its axes exchanged, {axes}"]
    for axis in range(right.ndim):
        if close(wrong, np.flip(right, axis)):
            return [f"it is the right value in reverse order along axis {axis}"]
        for step in (1, -1):
            if right.shape[axis] > 1 and close(wrong, np.roll(right, step, axis)):
                return [f"it is the right value moved by one along axis {axis}"]
    for name, other in reference.items():
        if name != tensor and other.shape == got.shape and close(wrong, other.astype(np.float64) / largest):
            return [f"it is {name}"]
    if b.size > 2 and close(np.sort(a), np.sort(b)):
        return ["it has the right numbers in other places"]
    if b.size == 1:
        return [f"no known mistake; it is {float(a[0] / b[0]):.6g} times the right one"]
    part = only_some(wrong, right, near)
    norms = float(np.linalg.norm(a) / np.linalg.norm(b))
    cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    return [*part, f"no known mistake; its norm is {norms:.4g} of the right one's, their cosine {cosine:.4f}"]


def known_factor(factor, entry, reference):
    """What a factor may stem from: quantities of the case that have its value."""
    settings, shapes = entry["settings"], {name: a.shape for name, a in reference.items()}
    named = {"2": 2.0, "1/2": 0.5}
    r, alpha = settings.get("r"), settings.get("alpha")
    if r and alpha:
        named |= {"r": r, "1/r": 1 / r, "α": alpha, "α/r": alpha / r, "r/α": r / alpha, "√r": math.sqrt(r)}
    about = settings.get("model", {})
    heads, width = about.get("n_heads", settings.get("n_heads")), about.get("d_model")
    if heads and not width and "q" in shapes:
        width = shapes["q"][-1]
    if heads and width:
        D = width / heads
        named |= {"√D": math.sqrt(D), "1/√D": 1 / math.sqrt(D), "D": D, "H": heads, "1/H": 1 / heads}
    leading = shapes.get("ids") or shapes.get("x") or shapes.get("q") or ()
    for letter, n in zip("BT", leading):
        named |= {letter: n, f"1/{letter}": 1 / n}
    if "targets" in reference:
        n = int((reference["targets"] != -100).sum())
        named |= {"N, the real targets": n, "1/N, N the real targets": 1 / n}
    fits = [name for name, value in named.items() if math.isclose(factor, value, rel_tol=1e-6)]
    return f" ({' or '.join(fits)})" if fits else ""


def only_some(wrong, right, near):
    """A sentence where a slice of an axis is wrong and all the rest is right."""
    far = np.abs(wrong - right) > near
    for axis in range(right.ndim):
        slices = far.any(axis=tuple(i for i in range(right.ndim) if i != axis))
        if 0 < slices.sum() <= len(slices) / 2 and len(slices) > 1:
            return [f"only entries with index {', '.join(map(str, np.flatnonzero(slices)))} on axis {axis} are off"]
    return []
