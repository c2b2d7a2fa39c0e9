"""Mixing: a weighted sum of adapters is an adapter again.

The updates add up, ΔW = Σ wᵢ ΔWᵢ, and for LoRA the sum has a factorisation at hand, of rank r₁ + r₂ + …: the A's
one above the other, the B's side by side,

    Σ wᵢ sᵢ Bᵢ Aᵢ = [w₁s₁B₁  w₂s₂B₂ …] [A₁; A₂; …]

which is exact. (Adding up the A's and the B's in place of the products would bring in the cross terms B₁A₂.)
`compress` cuts an adapter to a lower rank by the singular value decomposition, the best there is for that rank
(Eckart and Young 1936), and says what was lost.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..checked import finite_number
from .adapter import Adapter, adapter_deltas, fitting_arrays, layer_arrays, whole_weights
from .compact import compact_pattern, compact_targets
from .config import linear_layers, module_config, scaling
from .starts import STARTS


class Compressed(NamedTuple):
    """An adapter of lower rank, and how far it is from the one that it stands for."""

    adapter: Adapter
    errors: dict[str, float]  # layer -> ‖ΔW − ΔW′‖ / ‖ΔW‖ in Frobenius norm, 0 for an update of zero
    error: float  # the same of all layers together


def mix(params, adapters, weights):
    """The adapter whose update is the weighted sum of the updates of several.

    Parameters
    ----------
    params : dict of the base's weights, which every adapter must fit
    adapters : dict, name -> Adapter of LoRA, all of the same layers
    weights : dict, the same names -> float

    Returns
    -------
    Adapter of rank Σ rᵢ and scale 1 in every layer. A whole weight that they carry, such as a head, is
    moved from the base's by the weighted sum of their differences from it; where the base has none, it is
    the weighted sum.

    Raises
    ------
    ValueError
        For other names in `weights`, a weight that is no finite number, and adapters of another model, of
        different layers or of another kind.
    """
    weights = checked_weights(adapters, weights)
    check_same_names(adapters)
    for name, adapter in adapters.items():
        if adapter.config.kind != "lora":
            raise ValueError(f"adapters: {name!r} is of kind {adapter.config.kind!r}, expected 'lora'")
    first = next(iter(adapters.values()))
    by_layer = {name: fitting_arrays(params, adapter) for name, adapter in adapters.items()}
    mixed, ranks = {}, {}
    for module in layer_arrays(first):
        pairs = [
            (weights[name] * scaling(module_config(adapter.config, module)), by_layer[name][module])
            for name, adapter in adapters.items()
        ]
        mixed[f"{module}.lora_A"] = np.concatenate([pair["lora_A"] for _, pair in pairs])  # (Σr, in)
        mixed[f"{module}.lora_B"] = np.concatenate([w * pair["lora_B"] for w, pair in pairs], axis=1)  # (out, Σr)
        ranks[module] = len(mixed[f"{module}.lora_A"])
    for name in whole_weights(first):
        base = params.get(name, 0.0)
        mixed[name] = base + sum(weights[key] * (a.weights[name] - base) for key, a in adapters.items())
    return Adapter(unscaled_config(first.config, ranks, params), mixed)


def on_given_base(params, start, trained):
    """A trained adapter as one for the base that was given, where its start took it out of that base.

    W − s B₀ A₀ + s B A = W + (s B A − s B₀ A₀), which is LoRA of twice the rank, exactly; see `starts.py`.

    Parameters
    ----------
    params : dict of the weights of the base that `start_adapter` was given
    start, trained : Adapter, from `start_adapter` and after training

    Returns
    -------
    Adapter; `trained` itself where its start left the base as it was

    Raises
    ------
    ValueError
        For a start on a quantised base: what quantising changed is no adapter.
    """
    if trained.config.init not in STARTS:
        return trained
    if trained.config.init == "loftq":
        raise ValueError("trained: started by 'loftq' it goes with the quantised base that it started with")
    return mix(params, {"trained": trained, "start": start}, {"trained": 1.0, "start": -1.0})


def compress(params, adapter, r):
    """The adapter of rank r whose update is nearest to another's, layer by layer.

    ΔW ≈ U_r Σ_r V_rᵀ, shared out evenly: B = U_r √Σ_r and A = √Σ_r V_rᵀ, at scale 1.

    Parameters
    ----------
    params : dict of the base's weights
    adapter : Adapter of any kind
    r : int, at least 1; a layer that has room for less gets less

    Returns
    -------
    Compressed; its adapter is LoRA, with the same whole weights
    """
    if isinstance(r, bool) or not isinstance(r, (int, np.integer)) or r < 1:
        raise ValueError(f"r: got {r!r}, expected a whole number of at least 1")
    compressed, ranks, lost, all_of_it = {}, {}, {}, {}
    for name, delta in adapter_deltas(params, adapter).items():
        module = name.removesuffix(".weight")
        U, sigma, Vt = np.linalg.svd(delta.astype(np.float64), full_matrices=False)  # (out, n), (n,), (n, in)
        k = ranks[module] = min(int(r), len(sigma))
        root = np.sqrt(sigma[:k])  # (k,)
        compressed[f"{module}.lora_A"] = (root[:, None] * Vt[:k]).astype(delta.dtype)  # (k, in)
        compressed[f"{module}.lora_B"] = (U[:, :k] * root).astype(delta.dtype)  # (out, k)
        lost[module], all_of_it[module] = float(np.sum(sigma[k:] ** 2)), float(np.sum(sigma**2))
    errors = {module: math.sqrt(lost[module] / all_of_it[module]) if all_of_it[module] else 0.0 for module in lost}
    total = sum(all_of_it.values())
    error = math.sqrt(sum(lost.values()) / total) if total else 0.0
    config = unscaled_config(adapter.config, ranks, params)
    return Compressed(Adapter(config, {**compressed, **whole_weights(adapter)}), errors, error)


def unscaled_config(config, ranks, params):
    """The configuration of LoRA with these ranks by layer and scale 1, which is α = r."""
    if not ranks:  # a trained head alone
        return config
    r, pattern = compact_pattern(ranks)
    return replace(
        config,
        kind="lora",
        r=r,
        alpha=float(r),
        rank_pattern=pattern,
        alpha_pattern={key: float(value) for key, value in pattern.items()},
        targets=compact_targets(ranks, linear_layers(params)),
        rslora=False,
        init="kaiming",
        rate_factors={},
    )


def checked_weights(adapters, weights):
    """The weights as Python's floats, which leave float32 arrays what they are; one for each adapter and no other."""
    if not adapters:
        raise ValueError("adapters: got none, expected at least one")
    if set(weights) != set(adapters):
        raise ValueError(f"weights: got {', '.join(weights)}; expected one for each of {', '.join(adapters)}")
    return {name: finite_number(f"weights[{name!r}]", weight) for name, weight in weights.items()}


def check_same_names(adapters):
    """Raise ValueError unless all adapters are of the same layers and carry the same whole weights."""
    (first, reference), *others = adapters.items()
    for name, adapter in others:
        mine, theirs = set(layer_arrays(adapter)), set(layer_arrays(reference))
        mine |= set(whole_weights(adapter))
        theirs |= set(whole_weights(reference))
        for this, more, that in ((name, mine - theirs, first), (first, theirs - mine, name)):
            if more:
                raise ValueError(
                    f"adapters: {this!r} has {sorted(more)[0]}, which {that!r} has not; a mix needs the same layers"
                )
