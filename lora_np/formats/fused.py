"""Adapters of layers that stand side by side, such as q, k and v in GPT-2's `c_attn`, as one; and the way back.

Side by side, (out₁ + out₂ + …, in), the layers read the same x, and their outputs stand one above the other.

- Three adapters, or some of them, become one: the A's one above the other, the B's in blocks along a diagonal. Where
  all layers have the same A, as after the way back, that one A is kept and the B's are put one above the other.
- One becomes several that share its A, each with its part of B; or, where each component of the rank reaches one
  layer alone, in the layers' order as the joining leaves them, several that have just their own components.

Both are exact: no number but a zero is added. Only where the layers' scales differ is something rounded: one adapter
has one scale, and the B's of the others are multiplied by the ratio.
"""

import numpy as np


def split_factors(factors, names):
    """The adapters of layers that stand side by side in one.

    Parameters
    ----------
    factors : {"lora_A": (r, in), "lora_B": (Σ out, r)}
    names : list of the layers' names, all of the same size, in the order of their outputs

    Returns
    -------
    dict, name -> (A, B); a layer that no component reaches is not in it
    """
    lora_A, lora_B = factors["lora_A"], factors["lora_B"]
    blocks = np.split(lora_B, len(names))  # each (out of one, r)
    owners = component_owners(blocks)
    if owners is None:
        return {name: (lora_A, block) for name, block in zip(names, blocks)}
    parts = [(name, block, owners == i) for i, (name, block) in enumerate(zip(names, blocks))]
    return {name: (lora_A[own], block[:, own]) for name, block, own in parts if own.any()}


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
