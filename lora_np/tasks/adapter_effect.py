"""Measure how much an adapter changes each layer's weight, and the logits after a prompt."""

import math
from dataclasses import replace

import numpy as np

from ..adapters import HEAD, Adapter, AdapterConfig, head_arrays
from ..adapters.dora import delta
from ..analysis import effective_rank, product_singular_values
from ..checked import quoted
from ..data import decode, encode
from ..formats.adapter_report import APPLIED, FACTORS, TIED, base_array, base_weight, is_adaptable
from ..model import forward, modules
from .inspection import LARGEST

PROMPT = "The quick brown fox jumps over the"
N_IDS = 8  # length of the prompt if the base has no tokenizer
NOT_FINITE = "has NaN, infinite or extremely large values"
TOO_LARGE = "the update is larger than the weight itself: is the scale too large?"


@np.errstate(all="ignore")
def measure(layer, params, kind):
    """Return a layer's ‖ΔW‖/‖W‖ and the effective rank of its ΔW (each may be None), and a list of notes."""
    arrays = layer.arrays
    if not arrays:
        return None, None, []
    if not all(np.abs(x).max(initial=0) < LARGEST for x in (*arrays.values(), np.array(layer.scale or 0.0))):
        return None, None, [NOT_FINITE]
    if len(arrays) == 1:
        [(leaf, new)] = arrays.items()
        old = base_array(params, layer.ours, leaf)
        same_shape = old is not None and new.shape == old.shape  # the base's head may have another shape, or be missing
        return ratio(new - old, old) if same_shape else None, None, []
    old = base_weight(params, layer.ours)
    A, B = (arrays[factor].astype(np.float64) for factor in FACTORS)
    sigma = abs(layer.scale) * product_singular_values(B, A)
    zero = {"scale 0": not layer.scale, "A is zero": not A.any(), "B is zero, as before training": not B.any()}
    notes = [note for note, is_so in zero.items() if is_so]
    update = sigma
    if kind == "dora":
        config = AdapterConfig(r=layer.rank, alpha=layer.scale * layer.rank, kind=kind)
        update = delta(old, {**arrays, "lora_A": A, "lora_B": B}, config)
    change = ratio(update, old)
    notes += [TOO_LARGE] if change is None or change > 1 else []
    return change, effective_rank(sigma), notes


def ratio(change, size):
    """Return the ratio of two norms, ‖change‖/‖size‖: 0 if both are zero, and None if the ratio is not finite."""
    change, size = float(np.linalg.norm(change)), float(np.linalg.norm(size))
    quotient = change / size if size else 0.0 if change == 0 else math.inf
    return quotient if math.isfinite(quotient) else None


def attach(report, dtype):
    """Return an Adapter of a report's applied layers, and the names of any that lora_np does not support."""
    weights, ranks, alphas, left_out = {}, {}, {}, []
    for layer in report.layers:
        if layer.status != APPLIED:
            continue
        if len(layer.arrays) == 1 and TIED not in layer.notes:
            weights |= {f"{layer.ours[0]}.{leaf}": array.astype(dtype) for leaf, array in layer.arrays.items()}
        elif layer.arrays and is_adaptable(layer.ours):
            for i, name in enumerate(layer.ours):  # layers that are fused in the file share the same A
                ranks[name], alphas[name] = layer.rank, layer.scale * layer.rank
                for leaf, array in layer.arrays.items():
                    own = array if leaf == "lora_A" else np.split(array, len(layer.ours))[i]
                    weights[f"{name}.{leaf}"] = own.astype(dtype)
        else:
            left_out.append(layer.name)
    config = AdapterConfig(1, 1.0, tuple(ranks), rank_pattern=ranks, alpha_pattern=alphas, kind=report.kind)
    return Adapter(config, weights), left_out


@np.errstate(all="ignore")
def compare(task, report, prompt=None):
    """Compare the logits after a prompt with and without an adapter.

    Returns
    -------
    dict: "text", the prompt, or None; "ids", the token ids; "change", the largest absolute change in any logit, divided
        by the rms of the base's logits, or None if it is not finite; "base" and "adapter", the most likely next token
        or class without and with the adapter, or None for an encoder without a head, whose vectors are compared;
        "left_out", the names of layers whose effect is not included, such as the adapter's classification head, which
        both passes use.
    """
    params, config = task.params, task.config
    adapter, left_out = attach(report, params["tok_emb.weight"].dtype)
    head = next((layer.name for layer in report.layers if layer.is_class_head), None)
    if HEAD in adapter.weights and (head != "head" or config.n_classes):
        params, left_out = {**params, **head_arrays(adapter.weights)}, [*left_out, head]
        config = replace(config, n_classes=len(params[HEAD]))
    text, ids = prompt_ids(task, prompt)
    with_head = "head" in modules(config)
    pair = [forward(params, ids[None], config, adapter=each, head=with_head)[0][0] for each in (None, adapter)]
    base, adapted = (x[-1] if x.ndim == 2 else x for x in pair)  # (V,), (n_classes,) or (C,)

    def likeliest(logits):
        if not with_head:
            return None
        best = int(logits.argmax())
        if config.n_classes:
            return task.labels[best] if task.labels and len(task.labels) == len(logits) else f"class {best}"
        return f"token {best}" if task.tokenizer is None else repr(decode(task.tokenizer, np.array([best])))

    change = ratio(np.abs(adapted - base).max(), np.sqrt(np.mean(np.square(base, dtype=np.float64))))
    values = {"change": change, "left_out": left_out}
    return {"text": text, "ids": ids.tolist(), "base": likeliest(base), "adapter": likeliest(adapted), **values}


def prompt_ids(task, prompt=None):
    """Return the prompt and its ids (T,), or None and the ids 0, 1, … if the default prompt cannot be tokenised."""
    if task.tokenizer is not None:
        text = PROMPT if prompt is None else prompt
        ids = encode(task.tokenizer, [text], task.config.n_positions)[0]
        if ids.size:
            return text, ids
    if prompt is not None:
        lacks = "the base has no tokenizer" if task.tokenizer is None else "it has no tokens in this vocabulary"
        raise ValueError(f"prompt: got {quoted(prompt)}, but {lacks}")
    return None, np.arange(min(N_IDS, task.config.n_positions)) % task.config.vocab_size
