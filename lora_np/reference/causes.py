"""Find the likely cause of a port's mistake from the first tensor that diverges.

Each known mistake (`mistakes.py`) is planted in the plain program (`plain/`), one at a time. A mistake is a likely
cause if it reproduces the port's values of that tensor and does not affect earlier tensors. If several mistakes do so,
those that reproduce the largest number of later tensors are reported. If no known mistake does so, mutations of the
functions that compute the tensor are tried: they omit a term, flip a sign, transpose an array or change a digit. If no
mutation reproduces the values either, pairs of changes (known mistakes or mutations) are tried. Unless a known mistake
fits, `looks` reports what the tensor resembles: for example, the reference times a factor, or another tensor.
"""

import itertools
import math
import re

import numpy as np

from .mistakes import MISTAKES
from .sections import MODELS, name_in_model, operation_of
from .tolerances import allowed, rms, shares
from .wrong import both, derived, functions_behind, known, wrong_outputs

MOST = 3  # the largest number of causes in a report
MOST_IN_FULL = 20  # the largest number of changes for which later tensors are compared as well
MOST_IN_PAIRS = 120  # the largest number of changes that are tried in pairs
CANCELS = "which cancels"  # text in the sentence of every mistake that leaves only rounding errors
SLOW = (*MODELS, "generate", "llama_generate")  # kinds of cases for which trying pairs would take too long
WIDER = 8.0  # multiplies the tolerance, because a port with the same mistake rounds differently from the plain program
HELPERS = ("dropout", "embedding", "scale", "direction", "softmax", "split_heads", "join_heads", "in_groups")


def likely_causes(entry, reference, got, tensor, dtype, derive=True):
    """Find the likely causes of a divergence, and describe the tensor that diverges.

    Parameters
    ----------
    entry : dict, the case in the manifest
    reference : dict, name -> array, the case's inputs and outputs
    got : dict, name -> array, the port's outputs
    tensor : str, name of the first tensor that diverges
    dtype : "float64" or "float32"
    derive : bool, whether to try mutations as well, which takes seconds

    Returns
    -------
    causes : list of str, with the likeliest cause first
    seen : list of str, descriptions of the tensor, such as "its sign is reversed"; empty if a known mistake fits
    """
    records = {record["name"]: record for record in entry["tensors"]}
    if records[tensor]["stage"] == "input":
        return ["the port changed an input, and computed everything after it from the changed input"], []
    others = {name: array for name, array in reference.items() if name != tensor}
    seen = looks(reference[tensor], got[tensor], dtype, others, named_factors(entry["settings"], reference))
    if np.isnan(got[tensor]).all():  # every mistake that results in NaN would fit
        return [], seen
    trial = trial_of(entry, records, reference, got, tensor, dtype)
    settings = up_to(tensor, entry["settings"]), entry["settings"]
    known_mistakes = [(mistake, known(mistake)) for mistake in MISTAKES]
    causes = explained_by(known_mistakes, trial, *settings)
    if causes:
        return causes, []
    numbers = got[tensor][np.isfinite(reference[tensor])]
    informative = numbers.any() and np.isfinite(numbers).all()  # many changes result in 0 or NaN
    if not derive or not informative:
        return [], seen
    functions = functions_for(entry, reference, tensor)
    causes = explained_by(itertools.chain.from_iterable(map(derived, functions)), trial, *settings)
    if not causes and entry["kind"] not in SLOW:
        usual = [change for function in functions for change in derived(function, usual=True)]
        causes = explained_by(pairs([*known_mistakes, *usual], trial, settings[0]), trial, *settings)
    return [f"as if this were changed in the plain program: {cause}" for cause in causes], seen


def functions_for(entry, reference, tensor):
    """Return the functions that compute a tensor; one of them may contain the mistake.

    In a model, these are the functions of the tensor's stage (forward, backward or merging), without the operations
    that compute other activations. The gradient of an activation is computed by the backward pass of the operation that
    reads it. In the list of outputs, the gradient of an operation's output comes shortly before that of its input.
    """
    kind, settings = entry["kind"], entry["settings"]
    inputs = {r["name"]: reference[r["name"]] for r in entry["tensors"] if r["stage"] == "input"}
    with np.errstate(all="ignore"):
        functions = functions_behind(kind, up_to(tensor, settings), inputs)
        if "train" in settings:  # the model's own cases detect mistakes in the model
            return [function for function in functions if function.__module__.endswith("training")]
        if kind not in MODELS:
            return functions
        if "grad." in tensor or "merge" in tensor or "delta" in tensor:
            forward = functions_behind(kind, {**settings, "until": "loss"}, inputs)
            functions = [f for f in functions if f not in forward or "model" in f.__name__]
    outputs = [r["name"] for r in entry["tensors"] if r["stage"] != "input"]
    at = outputs.index(tensor)
    near = outputs[max(0, at - 8) : at + 1] if "grad." in tensor else [tensor]
    behind = (operation_of(settings, name_in_model(name)) for name in near)
    names = *(re.sub("^(grouped|encoder)_", "", operation) for operation in behind), *HELPERS
    return [f for f in functions if not f.__module__.endswith("operations") or f.__name__.startswith(names)]


def up_to(tensor, settings):
    """Settings with which the plain program stops soon after computing a tensor."""
    if "train" in settings:
        return {**settings, "until": int(tensor.split(".")[1])}  # 10 for step.10.loss
    if "n_new" in settings and tensor.startswith("step."):
        return {**settings, "n_new": int(tensor.split(".")[1]) + 1}
    forward = not tensor.startswith(("grad.", "delta.", "merged.", "step."))
    return {**settings, "until": "loss"} if forward and "model" in settings else settings


def trial_of(entry, records, reference, got, tensor, dtype):
    """Return a function (sentence, sources, settings) that tries a change in the plain program.

    The function returns the tensor that the changed program computes, or None if the change leaves this tensor as it is
    or already affects an earlier one. It also returns the number of tensors, from this tensor on, for which the changed
    program computes the port's values; 0.5 if a known mistake only nearly explains this tensor.
    """
    outputs = [name for name, record in records.items() if record["stage"] != "input"]
    inputs = {name: array for name, array in reference.items() if name not in outputs}
    written = [name for name in outputs if name in got]

    def same(a, b, name):
        """Whether two arrays are equal up to rounding; the tolerance scales with the values in b."""
        if a.shape != b.shape or not {a.dtype.kind, b.dtype.kind} <= set("fiu"):
            return False
        atol, rtol = allowed(records[name], dtype)
        return not (shares(a, b, WIDER * (atol + rtol * rms(b)), WIDER * rtol) > 1).any()

    def trial(sentence, sources, settings):
        try:
            made = wrong_outputs(sources, entry["kind"], settings, inputs, dtype)
        except Exception:  # the changed program fails for this case's shapes or values
            return None, 0
        off = [name for name in written if name in made and not same(made[name], reference[name], name)]
        if tensor not in off[:1]:
            return None, 0
        arrays = made[tensor], got[tensor], reference[tensor]
        if not same(*arrays[:2], tensor):
            return made[tensor], 0.5 * (sentence in MISTAKES and nearly(*arrays, CANCELS in sentence))
        later = [name for name in written[written.index(tensor) :] if name in made]
        return made[tensor], sum(same(got[name], made[name], name) for name in later)

    return trial


@np.errstate(invalid="ignore")
def nearly(made, got, right, cancels):
    """Whether a known mistake explains a tensor up to a small error, such as the error of an inexact erf in the port.

    If a mistake causes cancellation, it changes the tensor only by rounding errors, so only the magnitudes of these
    errors are compared.
    """
    if made.shape != got.shape:
        return False
    rest, off, off_in_port = (np.abs(a - b).max() for a, b in ((made, got), (made, right), (got, right)))
    if cancels:
        return max(off, off_in_port) < 1e-8 * rms(right) and off / 10 < off_in_port < 10 * off
    return rest < 1e-3 * off


def explained_by(changes, trial, short, settings):
    """Return the descriptions of the changes that reproduce the tensor and the largest number of later tensors.

    With the settings `short`, the plain program stops soon after computing the tensor.
    """
    fitting = [change for change in changes if trial(*change, short)[1]]
    if short != settings:
        fitting = fitting[:MOST_IN_FULL]
    explained = {sentence: trial(sentence, sources, settings)[1] for sentence, sources in fitting}
    best = max(explained.values(), default=0)  # 0 if no change fits in the full run
    return [sentence for sentence, n in explained.items() if n == best > 0][:MOST]


def pairs(changes, trial, short):
    """Yield pairs of changes that each affect the tensor but no earlier tensor."""
    alone = {}  # bytes of the changed tensor -> one change that produces them
    for sentence, sources in changes:
        made, _ = trial(sentence, sources, short)
        if made is not None:
            alone.setdefault(made.tobytes(), (sentence, sources))
    for (one, first), (other, second) in itertools.combinations(list(alone.values())[:MOST_IN_PAIRS], 2):
        sources = both(first, second)
        if sources:
            yield f"{one}; and {other}", sources


def named_factors(settings, reference):
    """The factors by which an incorrect gradient often differs from the correct one, such as α/r or √D, by name."""
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
        factors["N (the number of targets that are not ignored)"] = int((reference["targets"] != -100).sum())
    return factors


# ---------------------------------------------------------------- descriptions of incorrect arrays


@np.errstate(all="ignore")
def looks(right, wrong, dtype="float64", others=None, factors=None):
    """Describe how an incorrect array differs from the correct one.

    Parameters
    ----------
    right, wrong : the correct and the incorrect array, of the same shape
    dtype : "float64" or "float32", the precision in which both were computed
    others : dict, name -> array that `wrong` may be equal to
    factors : dict, name -> number by which `wrong` may have been multiplied or divided

    Returns
    -------
    list of str, such as "its sign is reversed"
    """
    if np.allclose(wrong.byteswap(), right, rtol=1e-4 if dtype == "float32" else 1e-10, atol=0.0):
        return ["its byte order is reversed; expected little-endian"]
    right, wrong = right.astype(np.float64), wrong.astype(np.float64)
    keep = np.isfinite(right)
    if np.isneginf(wrong[keep]).any() and (wrong < np.inf).all():
        return ["it is −inf where finite values are expected: the mask hides other keys, or it is the logarithm of 0"]
    if not np.isfinite(wrong[keep]).all():
        return ["it has NaN or infinity where finite values are expected: an overflow, 0/0, or an index out of range"]
    if not np.array_equal(wrong[~keep], right[~keep]):
        return ["it should be −inf where a key comes after the query; it has other values there"]
    in_float32 = [(array[keep] == array[keep].astype(np.float32)).all() for array in (wrong, right)]
    largest = np.abs(right[keep]).max(initial=0.0) or 1.0
    wrong, right = wrong / largest, right / largest  # so that squares neither overflow nor underflow
    a, b = wrong[keep], right[keep]
    size = rms(b)
    if size == 0.0:
        return ["it should be 0 throughout"]
    if not a.any():
        return ["it is 0 throughout: it was never computed, or is disconnected from its inputs"]
    near = 1e-10 * size if dtype == "float64" else 1e-4 * size
    error = float(np.abs(a - b).max()) / size
    if error < 1e-2:
        lost = "cancellation, a step computed in float32, "
        guess = lost if dtype == "float64" and error < 1e-5 else ""
        if guess and in_float32 == [True, False]:
            return ["all its values are float32 numbers: it is computed in float32, or rounded to it"]
        return [f"it is off by {error:.0e} of its rms: {guess}an extra or missing small term, or an inexact constant"]
    for sentence, x, y in lookalikes(wrong, right, keep, largest, others or {}, factors or {}):
        if x.shape == y.shape and (np.abs(x - y) <= near).all():
            return [sentence]
    if b.size == 1:
        return [f"it is {float(a[0] / b[0]):.6g} times the right value"]
    norms = float(np.linalg.norm(a) / np.linalg.norm(b))
    cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    summary = f"its norm is {norms:.4g} times the right norm; the cosine similarity is {cosine:.4f}"
    return [*only_some(wrong, right, near), summary]


def lookalikes(wrong, right, keep, largest, others, factors):
    """Yield (sentence, x, y) for each known relation between the two arrays; the sentence is true if x equals y.

    Both arrays have been divided by `largest`. `keep` marks the finite entries of the correct array.
    """
    a, b = wrong[keep], right[keep]
    yield "its sign is reversed", a, -b
    if b.size > 1:
        longest, shift = np.abs(a).max(), float((a - b).mean())
        share = float(a / longest @ b / (b @ b))
        yield f"it is the right value {known_factor(share * longest, factors)}", a / longest, share * b
        yield f"it is the right value plus {shift * largest:.9g} in every entry", a, b + shift
    for order in itertools.permutations(range(right.ndim)):
        turned = right.transpose(order)
        yield f"it is the right value with its axes swapped, {order}", wrong, turned
        yield f"it is the right value with its axes swapped, {order}", wrong, turned.reshape(right.shape)
    for axis in range(right.ndim):
        yield f"it is the right value in reverse order along axis {axis}", wrong, np.flip(right, axis)
        for step in (1, -1):
            yield f"it is the right value shifted by one along axis {axis}", wrong, np.roll(right, step, axis)
    for name, other in others.items():
        yield f"it is {name}", wrong, other.astype(np.float64) / largest
    if b.size > 2:
        yield "it has the right values in a different order", np.sort(a), np.sort(b)


def known_factor(factor, factors):
    """Describe a factor by the name of a quantity that equals it or its inverse; if there is none, by its digits."""
    for word, value in (("times", factor), ("divided by", 1 / factor if factor else math.inf)):
        names = [name for name, known in factors.items() if math.isclose(value, known, rel_tol=1e-6)]
        if len(names) == 1:  # if two quantities have the same value, neither is named
            return f"{word} {names[0]}"
    return f"times {factor:.9g}"


def only_some(wrong, right, near):
    """If only some slices along an axis are incorrect, name them; return a list of at most one sentence."""
    far = np.abs(wrong - right) > near
    for axis in range(right.ndim):
        slices = far.any(axis=tuple(i for i in range(right.ndim) if i != axis))
        if 0 < slices.sum() <= len(slices) / 2 and len(slices) > 1:
            return [f"only entries with index {', '.join(map(str, np.flatnonzero(slices)))} on axis {axis} are off"]
    return []
