"""Mix adapters: a weighted sum of adapters is again an adapter.

The updates are added, ΔW = Σ wᵢ ΔWᵢ. For LoRA, concatenating the A's vertically and the B's horizontally gives a
factorisation of rank r₁ + r₂ + …:

    Σ wᵢ sᵢ Bᵢ Aᵢ = [w₁s₁B₁  w₂s₂B₂ …] [A₁; A₂; …]

This is exact. (Adding the A's and adding the B's, instead of adding the products, would introduce cross terms such as
B₁A₂.) `compress` uses a singular value decomposition to find the best approximation that has a given lower rank (Eckart
and Young 1936), and measures its error.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..checked import finite_number, whole_number
from .adapter import Adapter, adapter_deltas, fitting_arrays, layer_arrays, whole_weights
from .compact import compact_pattern, compact_targets
from .config import linear_layers, module_config, scaling
from .starts import STARTS, svd_factors


class Compressed(NamedTuple):
    """An adapter of lower rank, and its distance from the original."""

    adapter: Adapter
    errors: dict[str, float]  # layer -> ‖ΔW − ΔW′‖ / ‖ΔW‖ in the Frobenius norm, 0 for an update of zero
    error: float  # the same ratio for the concatenated layers


def mix(params, adapters, weights):
    """Return the adapter whose update is the weighted sum of several adapters' updates.

    Parameters
    ----------
    params : dict of the base's weights
    adapters : dict, name -> Adapter of kind "lora"; all must adapt the same layers
    weights : dict, the same names -> float

    Returns
    -------
    Adapter of rank Σ rᵢ and scale 1 in every layer. A whole weight, such as a head, is the base's plus the weighted sum
    of the adapters' differences from it; if the base has no such weight, the result is the weighted sum.

    Raises
    ------
    ValueError
        If the names in `weights` are not those in `adapters`, a weight is not finite, or an adapter is not of kind
        "lora", belongs to a different model or has different layers.
    """
    if not adapters:
        raise ValueError("adapters: got none, expected at least one")
    if set(weights) != set(adapters):
        raise ValueError(f"weights: got {', '.join(weights)}; expected one for each of {', '.join(adapters)}")
    # Python floats, because NumPy scalars would turn float32 arrays into float64.
    weights = {name: finite_number(f"weights[{name!r}]", weight) for name, weight in weights.items()}
    names = {name: {*layer_arrays(adapter), *whole_weights(adapter)} for name, adapter in adapters.items()}
    for name, adapter in adapters.items():
        if missing := set().union(*names.values()) - names[name]:
            raise ValueError(f"adapters: {name!r} lacks {min(missing)}; expected the same layers in all adapters")
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


def for_original_base(params, start, trained):
    """Convert a trained adapter into an equivalent one for the original base, which was passed to `start_adapter`.

    The trained model is W − s B₀ A₀ + s B A = W + (s B A − s B₀ A₀). The difference in parentheses is itself a LoRA
    update, of twice the rank, so the conversion is exact; see `starts.py`.

    Parameters
    ----------
    params : dict, the weights that were passed to `start_adapter`
    start, trained : Adapter, the result of `start_adapter` before and after training

    Returns
    -------
    Adapter; `trained` itself if `start_adapter` did not change the base

    Raises
    ------
    ValueError
        For "loftq", because no adapter can undo the quantisation; and for a kind other than "lora".
    """
    if trained.config.init not in STARTS:
        return trained
    if trained.config.init == "loftq":
        raise ValueError("trained: got init 'loftq', which works only with the quantised base from start_adapter")
    return mix(params, {"trained": trained, "start": start}, {"trained": 1.0, "start": -1.0})


def compress(params, adapter, r):
    """Return the adapter of rank r whose update is closest to the given adapter's, layer by layer.

    ΔW ≈ U_r Σ_r V_rᵀ = B A with B = U_r √Σ_r and A = √Σ_r V_rᵀ, at scale 1.

    Parameters
    ----------
    params : dict of the base's weights
    adapter : Adapter of any kind
    r : int, at least 1; a layer with min(out, in) < r gets rank min(out, in)

    Returns
    -------
    Compressed, whose adapter is of kind "lora" and has the given adapter's whole weights

    Raises
    ------
    ValueError
        If r is not an integer of at least 1, the adapter does not fit the base, or its update is not finite.
    """
    r = whole_number("r", r)
    compressed, ranks, lost, energy = {}, {}, {}, {}  # the last two: sums of squares
    for name, delta in adapter_deltas(params, adapter).items():
        module = name.removesuffix(".weight")
        if not np.isfinite(delta).all():
            raise ValueError(f"{module}: ΔW has values that are not finite")
        factors, sigma = svd_factors(delta, r, scale=1.0)
        compressed |= {f"{module}.{leaf}": array for leaf, array in factors.items()}
        ranks[module] = len(factors["lora_A"])
        lost[module], energy[module] = float(np.sum(sigma[r:] ** 2)), float(np.sum(sigma**2))
    errors = {module: math.sqrt(lost[module] / energy[module]) if energy[module] else 0.0 for module in lost}
    total = sum(energy.values())
    error = math.sqrt(sum(lost.values()) / total) if total else 0.0
    config = unscaled_config(adapter.config, ranks, params)
    return Compressed(Adapter(config, {**compressed, **whole_weights(adapter)}), errors, error)


def unscaled_config(config, ranks, params):
    """The configuration of a LoRA adapter whose layers have these ranks and scale 1, so α = r."""
    if not ranks:  # only a trained head
        return config
    r, pattern = compact_pattern(ranks)  # α is r in every layer, so it has the same pattern
    return replace(
        config,
        kind="lora",
        r=r,
        alpha=r,
        rank_pattern=pattern,
        alpha_pattern=pattern,
        targets=compact_targets(ranks, linear_layers(params)),
        rslora=False,
        init="kaiming",
        rate_factors={},
    )
