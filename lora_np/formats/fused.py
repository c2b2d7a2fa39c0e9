"""Join the adapters of layers with the same input, such as q, k and v in GPT-2's `c_attn`, or split a joined adapter.

The joined layers have the same input x, and their outputs are concatenated: the fused weight is (out₁ + out₂ + …, in).

- Joining: the A matrices are stacked, and the B matrices form a block-diagonal matrix. If all layers have the same A,
  as they do after a split, the result keeps that A, and only the B matrices are stacked.
- Splitting: each layer gets the entire A and its own rows of B. But if each rank-1 component affects only one layer,
  and the components are in the layers' order, as joining leaves them, each layer gets only its own components.

Both operations are exact, because they only add or remove zeros. The exception is joining layers with different scales:
a joined adapter has only one scale, so a B with another scale is multiplied by the ratio of the two, which causes
rounding errors. For a scale of 0, A is set to zero instead of B, because splitting finds a component's layer from B.

DoRA's magnitude vectors m (out,) are also concatenated. If a layer without an adapter is joined with an adapted one,
the m of the unadapted layer contains the row norms of its base weight, so that its output does not change. Splitting
recognises such a layer by this m.
"""

import numpy as np

from ..adapters import fitting_arrays, module_config, scaling
from ..adapters.dora import MAGNITUDE, row_norms
from .names import linear_names


def joined_layers(params, adapter, config, file):
    """Join the adapters of layers that are fused in an "hf" or "gguf" file: {name: (factors, scale, our names)}.

    `params` and `config` describe the base. Raises ValueError if the adapter does not fit the base.
    """
    own, layers = fitting_arrays(params, adapter), {}
    for layer, names in linear_names(config, file).items():
        adapted = [(own[n], scaling(module_config(adapter.config, n))) if n in own else None for n in names]
        if any(adapted):
            layers[layer] = *join_factors(adapted, [params[f"{name}.weight"] for name in names]), names
    return layers


def split_factors(factors, names, weights=None):
    """Split a fused layer's adapter into {name: factors}, omitting layers that the adapter does not affect.

    `factors` has lora_A (r, in), lora_B (Σ out, r) and, for DoRA, lora_magnitude_vector (Σ out,). `names` lists the
    layers, all of the same shape, in output order. `weights`, their base weights (out, in), are needed only for DoRA.
    """
    lora_A, blocks = factors["lora_A"], np.split(factors["lora_B"], len(names))  # each (out, r)
    magnitudes = [{}] * len(names)
    if MAGNITUDE in factors:
        magnitudes = [{MAGNITUDE: m} for m in np.split(factors[MAGNITUDE], len(names))]  # each (out,)
    owners = component_owners(blocks)
    trained = {i for i, m in enumerate(magnitudes) if m and not are_row_norms(m[MAGNITUDE], weights[i])}
    if owners is None or not trained <= set(owners):  # a layer with trained magnitudes needs an A even if its B is zero
        return {name: {"lora_A": lora_A, "lora_B": B, **m} for name, B, m in zip(names, blocks, magnitudes)}
    rows = [(name, B, m, owners == i) for i, (name, B, m) in enumerate(zip(names, blocks, magnitudes))]
    return {name: {"lora_A": lora_A[own], "lora_B": B[:, own], **m} for name, B, m, own in rows if own.any()}


def component_owners(blocks):
    """The index of the layer that each rank-1 component affects, (r,).

    None if a component affects several layers, or if the components are not in the order of the layers. A component
    whose B is zero affects no layer. Such a component goes to its neighbour's layer, but any layer would be exact.
    """
    affects = np.array([block.any(axis=0) for block in blocks])  # (layers, r)
    known = affects.any(axis=0)
    if len(blocks) == 1 or (affects.sum(axis=0) > 1).any() or not known.any():
        return None
    owners, r = affects.argmax(axis=0), np.arange(len(known))
    last = np.maximum.accumulate(np.where(known, r, -1))  # the last component with a known layer, up to this one
    owners = owners[np.where(last < 0, known.argmax(), last)]
    return owners if (np.diff(owners) >= 0).all() else None


def join_factors(adapted, weights):
    """Join the adapters of adjacent layers. Return the joined factors, as in `split_factors`, and their scale.

    For each layer, `adapted` has a pair (factors, scale) or None, and `weights` has the base weight (out, in).
    """
    present = [pair for pair in adapted if pair]
    first, scale = present[0]
    are_alike = all(s == scale and np.array_equal(own["lora_A"], first["lora_A"]) for own, s in present)
    if are_alike and len(present) == len(adapted):
        joined = {"lora_A": first["lora_A"], "lora_B": np.concatenate([own["lora_B"] for own, _ in present])}
    else:
        scale = next((s for _, s in present if s), 0.0)
        lora_A = np.concatenate([own["lora_A"] * (s != 0 or scale == 0) for own, s in present])  # (Σr, in)
        blocks, column = [], 0
        for pair, weight in zip(adapted, weights):
            blocks.append(np.zeros((weight.shape[0], len(lora_A)), dtype=lora_A.dtype))  # (out, Σr)
            if pair:
                own, s = pair[0]["lora_B"], pair[1]  # (out, r)
                blocks[-1][:, column : column + own.shape[1]] = own if s in (0, scale) else (s / scale) * own
                column += own.shape[1]
        joined = {"lora_A": lora_A, "lora_B": np.concatenate(blocks)}
    if MAGNITUDE in first:
        norms = [pair[0][MAGNITUDE] if pair else exact_norms(w).astype(w.dtype) for pair, w in zip(adapted, weights)]
        joined[MAGNITUDE] = np.concatenate(norms)  # (Σout,)
    return joined, scale


def exact_norms(weight):
    """A weight's row norms in float64, so that rounding them to float32 gives the same values on every machine."""
    return row_norms(np.asarray(weight).astype(np.float64))


def are_row_norms(magnitudes, weight):
    """Whether magnitudes are the base weight's row norms, in the weight's dtype or rounded to float32."""
    return any(np.array_equal(magnitudes, exact_norms(weight).astype(dtype)) for dtype in (weight.dtype, np.float32))
