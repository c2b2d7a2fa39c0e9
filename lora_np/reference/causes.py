"""What a port has probably done, judged by the first tensor that diverges.

First this package makes each known mistake itself (`mistakes.py`, `wrong.py`). A mistake that leaves all earlier
tensors right and gives the port's numbers for this one is the likely cause; if several do, the later tensors decide. If
none fits, it makes small changes to its own functions that compute the tensor (`mutants.py`): a term left out, a sign,
a transpose. Unless a known mistake fits, `looks` also describes the tensor itself: a factor, another order, another
tensor.
"""

import itertools
import math

import numpy as np

from .mistakes import MISTAKES
from .sections import MODELS, name_in_model, operation_of
from .tolerances import allowed, rms, shares
from .wrong import derived, wrong_code, wrong_outputs

MOST = 3  # sentences
WIDER = 8.0  # times a tensor's tolerance: a port with a mistake rounds differently from the package with it
MODULES = {  # of a kind or an operation, if not the one of its name in ops/
    **{name: (f"training.{name}",) for name in ("clip", "schedule", "adamw", "accumulate")},
    **{name: (f"adapters.{name}", "ops.low_rank", "adapters.config") for name in ("lora", "dora", "qalora")},
    "grouped_attention": ("ops.attention", "ops.softmax"),
    "attention": ("ops.attention", "ops.softmax"),
    "linear_cross_entropy": ("ops.linear_cross_entropy", "ops.cross_entropy"),
    **{name: ("model.layers",) for name in ("residual", "pool", "embed")},
    "sample": ("model.sampling",),
    "generate": ("model.decoder",),
    "llama_generate": ("model.decoder",),
    "nf4": ("compress.nf4", "compress.double"),
    "blocks": ("compress.ggml",),
    "gguf_read": ("formats.llama", "compress.ggml"),
    "gguf_adapter": ("formats.to_gguf", "formats.llama"),
    **{name: ("formats.gpt2", "formats.fused") for name in ("gpt2_read", "gpt2_write")},
    **{name: ("formats.peft", "formats.fused") for name in ("peft_read", "peft_write")},
    "spectrum": ("reference.cases.files",),
}


def likely_causes(entry, reference, got, tensor, dtype, derive=True):
    """What is wrong, and what the tensor looks like.

    Parameters
    ----------
    entry : dict, the case in the manifest
    reference : dict, name -> array, the case's inputs and outputs
    got : dict, name -> array, the port's outputs
    tensor : str, the first that diverges
    dtype : "float64" or "float32"
    derive : bool, whether to try changes of the package's functions too, which takes seconds

    Returns
    -------
    causes : list of sentences, the likeliest first
    seen : list of sentences, each about "it"; empty if a known mistake fits
    """
    records = {record["name"]: record for record in entry["tensors"]}
    if records[tensor]["stage"] == "input":
        return ["an input comes back with other numbers, and everything after it was computed from those"], []
    others = {name: array for name, array in reference.items() if name != tensor}
    seen = looks(reference[tensor], got[tensor], dtype, others, named_factors(entry["settings"], reference))
    if np.isnan(got[tensor]).all():  # any mistake that makes NaN would fit
        return [], seen
    given = entry, records, reference, got, tensor, dtype
    known = explained_by({mistake: wrong_code(mistake) for mistake in MISTAKES}, *given)
    if known or not derive:
        return known, [] if known else seen
    changes = dict(itertools.chain.from_iterable(derived(module).items() for module in modules_of(entry, tensor)))
    return [f"as if this were changed in the package: {sentence}" for sentence in explained_by(changes, *given)], seen


def modules_of(entry, tensor):
    """The modules of the package that compute a tensor.

    In a model the gradient of an activation comes from the operation that reads it, whose own gradient is computed
    shortly before.
    """
    names = [entry["kind"]]
    if entry["kind"] in MODELS:
        outputs = [record["name"] for record in entry["tensors"] if record["stage"] != "input"]
        at = outputs.index(tensor)
        near = outputs[max(0, at - 8) : at + 1] if "grad." in tensor else [tensor]
        names = [operation_of(entry["settings"], name_in_model(name)) for name in reversed(near)]
        names += ["residual", *["adamw", "clip", "schedule"] * ("train" in entry["settings"])]
    return list(dict.fromkeys(m for name in names if name for m in MODULES.get(name, (f"ops.{name}",))))


def explained_by(changes, entry, records, reference, got, tensor, dtype):
    """The sentences of the changes, sentence -> codes, that explain the tensor best."""
    outputs = [name for name, record in records.items() if record["stage"] != "input"]
    inputs = {name: array for name, array in reference.items() if name not in outputs}

    def same(a, b, name):
        """Whether two arrays are equal up to rounding, which is as large as the numbers that a mistake makes."""
        if a is None or b is None or a.shape != b.shape:
            return False
        atol, rtol = allowed(records[name], dtype)
        return not (shares(a, b, WIDER * (atol + rtol * rms(b)), WIDER * rtol) > 1).any()

    settings = entry["settings"]
    if "train" in settings:
        settings = {**settings, "until": int(tensor.split(".")[1])}  # of step.10.loss
    scores = {}
    for sentence, codes in changes.items():
        try:
            made = wrong_outputs(codes, entry["kind"], settings, inputs, dtype)
        except Exception:
            continue  # this case's shapes or numbers make the mistake impossible
        first = next((n for n in outputs if not same(made.get(n), reference[n], n)), None)
        if first == tensor and same(got[tensor], made.get(tensor), tensor):
            scores[sentence] = sum(same(got.get(n), made.get(n), n) for n in outputs[outputs.index(tensor) :])
    best = max(scores.values(), default=0)
    return [sentence for sentence, score in scores.items() if score == best][:MOST]


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


# ---------------------------------------------------------------- what a wrong array looks like


@np.errstate(all="ignore")
def looks(right, wrong, dtype="float64", others=None, factors=None):
    """Sentences on how an array differs from the right one of its shape.

    Parameters
    ----------
    right, wrong : arrays of one shape that differ
    dtype : "float64" or "float32", what both were computed in
    others : dict, name -> array: arrays that it may be instead
    factors : dict, name -> number: what it may have been multiplied or divided by

    Returns
    -------
    list of str, each about "it"
    """
    if np.allclose(wrong.byteswap(), right, rtol=1e-4 if dtype == "float32" else 1e-10, atol=0.0):
        return ["its bytes are in the opposite order: files are little-endian"]
    right, wrong = right.astype(np.float64), wrong.astype(np.float64)
    keep = np.isfinite(right)
    if not np.isfinite(wrong[keep]).all():
        return ["it holds NaN or infinity where numbers are expected: an overflow, 0/0, or an index out of range"]
    if not np.array_equal(wrong[~keep], right[~keep]):
        return ["it should be −inf where a key comes after its query; it holds other numbers there"]
    largest = np.abs(right[keep]).max(initial=0.0) or 1.0
    wrong, right = wrong / largest, right / largest  # so that no square overflows or vanishes
    a, b = wrong[keep], right[keep]
    size = rms(b)
    if size == 0.0:
        return ["it should be 0 throughout"]
    if not a.any():
        return ["it is 0 throughout: never computed, or cut off from what it depends on"]
    near = 1e-10 * size if dtype == "float64" else 1e-4 * size
    error = float(np.abs(a - b).max()) / size
    if error < 1e-2:
        guess = "some of it in float32, or " if dtype == "float64" and 1e-9 < error < 1e-5 else ""
        return [f"it is off by {error:.0e} of its size: {guess}a small term or a constant that is not exact"]
    for sentence, x, y in lookalikes(wrong, right, keep, largest, others or {}, factors or {}):
        if x.shape == y.shape and (np.abs(x - y) <= near).all():
            return [sentence]
    if b.size == 1:
        return [f"no known mistake; it is {float(a[0] / b[0]):.6g} times the right one"]
    norms = float(np.linalg.norm(a) / np.linalg.norm(b))
    cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    summary = f"no known mistake; its norm is {norms:.4g} of the right one's, their cosine {cosine:.4f}"
    return [*only_some(wrong, right, near), summary]


def lookalikes(wrong, right, keep, largest, others, factors):
    """(sentence, x, y) for each way in which the wrong array may come from the right one: if so, x is y.

    Both arrays are divided by `largest`; `keep` says which entries of the right one are finite.
    """
    a, b = wrong[keep], right[keep]
    yield "its sign is reversed", a, -b
    if b.size > 1:
        longest, shift = np.abs(a).max(), float((a - b).mean())
        share = float(a / longest @ b / (b @ b))
        yield f"it is the right value {known_factor(share * longest, factors)}", a / longest, share * b
        yield f"it is the right value plus {shift * largest:.9g}, the same everywhere", a, b + shift
    for order in itertools.permutations(range(right.ndim)):
        turned = right.transpose(order)
        yield f"it is the right value with its axes exchanged, {order}", wrong, turned
        yield f"it is the right value with its axes exchanged, {order}", wrong, turned.reshape(right.shape)
    for axis in range(right.ndim):
        yield f"it is the right value in reverse order along axis {axis}", wrong, np.flip(right, axis)
        for step in (1, -1):
            yield f"it is the right value moved by one along axis {axis}", wrong, np.roll(right, step, axis)
    for name, other in others.items():
        yield f"it is {name}", wrong, other.astype(np.float64) / largest
    if b.size > 2:
        yield "it has the right numbers in other places", np.sort(a), np.sort(b)


def known_factor(factor, factors):
    """A factor in words: the name of a quantity that has its value or its inverse's, or its digits."""
    for word, value in (("times", factor), ("divided by", 1 / factor if factor else math.inf)):
        names = [name for name, known in factors.items() if math.isclose(value, known, rel_tol=1e-6)]
        if len(names) == 1:  # where two are of one size, neither is named
            return f"{word} {names[0]}"
    return f"times {factor:.9g}"


def only_some(wrong, right, near):
    """A sentence, in a list, if some slices of an axis are wrong and all the rest is right."""
    far = np.abs(wrong - right) > near
    for axis in range(right.ndim):
        slices = far.any(axis=tuple(i for i in range(right.ndim) if i != axis))
        if 0 < slices.sum() <= len(slices) / 2 and len(slices) > 1:
            return [f"only entries with index {', '.join(map(str, np.flatnonzero(slices)))} on axis {axis} are off"]
    return []
