"""Adapters of layers that stand side by side, such as q, k and v in GPT-2's `c_attn`, as one; and the way back.

Side by side, (out₁ + out₂ + …, in), the layers read the same x, and their outputs stand one above the other.

- Three adapters, or some of them, become one: the A's one above the other, the B's in blocks along a diagonal. Where
  all layers have the same A, as after the way back, that one A is kept and the B's are put one above the other.
- One becomes several that share its A, each with its part of B; or, where each component of the rank reaches one
  layer alone, in the layers' order as the joining leaves them, several that have just their own components.

Both are exact: no number but a zero is added. Only where the layers' scales differ is something rounded: one adapter
has one scale, and the B's of the others are multiplied by the ratio.

DoRA's lengths m are one for each output, so they stand one above the other too, and the norms of the rows of W + s B A
are what they were. A layer without an adapter beside one that has one gets the lengths of its base's rows, which leave
it as it is; by them it is known on the way back.
"""

import numpy as np

from ..adapters.dora import MAGNITUDE, row_norms


def split_factors(factors, names, weights=None):
    """The adapters of layers that stand side by side in one.

    Parameters
    ----------
    factors : {"lora_A": (r, in), "lora_B": (Σ out, r)}, and of DoRA "lora_magnitude_vector": (Σ out,)
    names : list of the layers' names, all of the same size, in the order of their outputs
    weights : list of the layers' base weights, each (out, in); needed for DoRA alone

    Returns
    -------
    dict, name -> its part of the factors; a layer that nothing reaches is not in it
    """
    lora_A, blocks = factors["lora_A"], np.split(factors["lora_B"], len(names))  # each (out of one, r)
    lengths = [{}] * len(names)
    if MAGNITUDE in factors:
        lengths = [{MAGNITUDE: m} for m in np.split(factors[MAGNITUDE], len(names))]  # each (out of one,)
    owners = component_owners(blocks)
    moved = {i for i, m in enumerate(lengths) if m and not are_base_lengths(m[MAGNITUDE], weights[i])}
    if owners is None or not moved <= set(owners):  # a layer whose lengths alone were trained needs an A all the same
        return {name: {"lora_A": lora_A, "lora_B": B, **m} for name, B, m in zip(names, blocks, lengths)}
    parts = [(name, B, m, owners == i) for i, (name, B, m) in enumerate(zip(names, blocks, lengths))]
    return {name: {"lora_A": lora_A[own], "lora_B": B[:, own], **m} for name, B, m, own in parts if own.any()}


def component_owners(blocks):
    """Which layer each component of the rank reaches, (r,); None unless they can be told apart, in the layers' order.

    A component that reaches none, as where B is zero, goes with its neighbours: it is exact with any.
    """
    reached = np.array([block.any(axis=0) for block in blocks])  # (layers, r)
    known = reached.any(axis=0)
    if len(blocks) == 1 or (reached.sum(axis=0) > 1).any() or not known.any():
        return None
    owners, r = reached.argmax(axis=0), np.arange(len(known))
    last = np.maximum.accumulate(np.where(known, r, -1))  # the nearest known one before, or else the first of all
    owners = owners[np.where(last < 0, known.argmax(), last)]
    return owners if (np.diff(owners) >= 0).all() else None


def join_factors(adapted, outs):
    """One adapter for layers that stand side by side: A, B and the scale.

    Parameters
    ----------
    adapted : list of ({"lora_A": …, "lora_B": …}, scale), or None, for each layer
    outs : list of int, the layers' outputs

    Returns
    -------
    A (r, in), B (Σ out, r), scale : float
    """
    present = [pair for pair in adapted if pair]
    first, scale = present[0]
    shared = len(present) == len(adapted) and all(
        s == scale and np.array_equal(pair["lora_A"], first["lora_A"]) for pair, s in present
    )
    if shared:
        return first["lora_A"], np.concatenate([pair["lora_B"] for pair, _ in present]), scale
    scale = next((s for _, s in present if s), 0.0)
    lora_A = np.concatenate([pair["lora_A"] for pair, _ in present])  # (Σr, in)
    lora_B = np.zeros((sum(outs), len(lora_A)), dtype=lora_A.dtype)  # (Σout, Σr)
    row = column = 0
    for pair, n_out in zip(adapted, outs):
        if pair:
            block, s = pair[0]["lora_B"], pair[1]  # (out, r)
            end = column + block.shape[1]
            lora_B[row : row + n_out, column:end] = block if s == scale else (s / scale) * block
            column = end
        row += n_out
    return lora_A, lora_B, scale


def join_lengths(adapted, weights):
    """DoRA's lengths for layers that stand side by side, (Σ out,).

    Parameters
    ----------
    adapted : see `join_factors`, each with "lora_magnitude_vector" (out,)
    weights : list of the layers' base weights
    """
    return np.concatenate(
        [pair[0][MAGNITUDE] if pair else base_lengths(weight) for pair, weight in zip(adapted, weights)]
    )


def base_lengths(weight):
    """The norms of a weight's rows, summed in float64, so that they are the same numbers on every machine."""
    weight = np.asarray(weight)
    return row_norms(weight.astype(np.float64)).astype(weight.dtype)


def are_base_lengths(lengths, weight):
    """Whether lengths are those of the base's rows, or were in a file of float32."""
    norms = base_lengths(np.asarray(weight).astype(np.float64))
    return any(np.array_equal(lengths, norms.astype(dtype)) for dtype in (weight.dtype, np.float32))
