"""A reference case computed from SPEC.md's formulas in their plainest form, with or without one mistake."""

import numpy as np

from ..cases import in_dtype
from . import model as pm
from . import operations as op
from . import training
from .mistakes import MISTAKES

__all__ = ["KINDS", "MISTAKES", "plain_outputs"]


def linear_case(settings, t, wrong):
    dx, dweight, dbias = op.linear_back(t["grad.y"], t["x"], t["weight"], wrong)
    y = op.linear(t["x"], t["weight"], t.get("bias"), wrong)
    return {"y": y, "grad.x": dx, "grad.weight": dweight, "grad.bias": dbias}


def layer_norm_case(settings, t, wrong):
    y, x_hat, inv_std = op.layer_norm(t["x"], t["weight"], t["bias"], settings["eps"], wrong)
    dx, dweight, dbias = op.layer_norm_back(t["grad.y"], t["x"], t["weight"], x_hat, inv_std, wrong)
    forward = {"inv_std": inv_std[..., 0], "x_hat": x_hat, "y": y}
    return {**forward, "grad.bias": dbias, "grad.weight": dweight, "grad.x": dx}


def gelu_case(settings, t, wrong):
    y, slope = op.gelu(t["x"], wrong)
    return {"y": y, "slope": slope, "grad.x": t["grad.y"] * slope}


def softmax_case(settings, t, wrong):
    probs = op.softmax(t["x"], wrong)
    return {"probs": probs, "grad.x": op.softmax_back(t["grad.probs"], probs, wrong)}


def attention_case(settings, t, wrong):
    q, k, v, n_heads, positions = t["q"], t["k"], t["v"], settings["n_heads"], t.get("positions")
    scores, probs, context = op.attention(q, k, v, n_heads, positions, wrong)
    grads = op.attention_back(t["grad.context"], q, k, v, probs, n_heads, wrong)
    names = ("grad.v", "grad.probs", "grad.scores", "grad.q", "grad.k")
    return {"scores": scores, "probs": probs, "context": context, **dict(zip(names, grads))}


def embedding_case(settings, t, wrong):
    dweight = op.embedding_back(t["grad.y"], t["ids"], t["weight"], wrong)
    return {"y": t["weight"][t["ids"]], "grad.weight": dweight}


def cross_entropy_case(settings, t, wrong):
    given = settings["ignore_index"], settings["grad_loss"]
    loss, dlogits = op.cross_entropy(t["logits"], t["targets"], *given, wrong)
    return {"loss": np.asarray(loss), "grad.logits": dlogits}


def dropout_case(settings, t, wrong):
    return {"y": op.drop(t["x"], t["mask"], wrong), "grad.x": op.drop_back(t["grad.y"], t["mask"], wrong)}


def prefixed(grads):
    return {f"grad.{name}": grad for name, grad in grads.items()}


def lora_case(settings, t, wrong):
    s = op.scaling(settings["r"], settings["alpha"], settings["rslora"], wrong)
    A, B, mask = t["lora_A"], t["lora_B"], t.get("mask")
    y, su = op.lora(t["x"], t["weight"], t["bias"], A, B, s, mask, wrong)
    grads = op.lora_back(t["grad.y"], t["x"], t["weight"], A, B, s, mask, su, wrong)
    delta = op.lora_delta(A, B, s, wrong)
    return {"su": su, "y": y, **prefixed(grads), "delta": delta, "merged": t["weight"] + delta}


def dora_case(settings, t, wrong):
    s = op.scaling(settings["r"], settings["alpha"], settings["rslora"], wrong)
    weights, mask = [t[name] for name in ("lora_A", "lora_B", "lora_magnitude_vector")], t.get("mask")
    y, *made = op.dora(t["x"], t["weight"], t["bias"], *weights, s, mask, wrong)
    given = t["grad.y"], t["x"], t["weight"], *weights, s, mask, made, settings["norm_gradient"]
    delta = op.dora_delta(t["weight"], *weights, s, wrong)
    _, norm, h, su = made
    back = prefixed(op.dora_back(*given, wrong))
    return {"norm": norm, "h": h, "su": su, "y": y, **back, "delta": delta, "merged": t["weight"] + delta}


KINDS = {
    "linear": linear_case,
    "layer_norm": layer_norm_case,
    "gelu": gelu_case,
    "softmax": softmax_case,
    "attention": attention_case,
    "embedding": embedding_case,
    "cross_entropy": cross_entropy_case,
    "dropout": dropout_case,
    "lora": lora_case,
    "dora": dora_case,
    "model": pm.model,
    "generate": pm.generate,
    "clip": training.clip_case,
    "schedule": training.schedule_case,
    "adamw": training.adamw_case,
    "train": training.train_case,
    "spectrum": training.spectrum_case,
    "nf4": training.nf4_case,
}


def plain_outputs(kind, settings, inputs, dtype, wrong=None):
    """The outputs of a case, or what one mistake makes of them.

    Parameters
    ----------
    kind, settings, inputs : as in the manifest; inputs in the precision
    dtype : "float64" or "float32"
    wrong : a key of `MISTAKES`, or None

    Returns
    -------
    dict, name -> array; of a kind that is here computed in no plain form (files), empty
    """
    if kind not in KINDS:
        return {}
    with np.errstate(all="ignore"):  # a mistake may well divide by zero
        found = KINDS[kind](settings, inputs, wrong)
    return {name: in_dtype(np.asarray(array), dtype) for name, array in found.items()}
