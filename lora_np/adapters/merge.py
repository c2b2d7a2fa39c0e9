"""Merging: W′ = W + ΔW, after which the adapted model costs what the base costs."""

from .adapter import adapter_deltas


def merge(params, adapter):
    """The model with the adapter's update added to its weights (Hu et al. 2021, section 4.1).

    Parameters
    ----------
    params : dict, the base's weights (left as they are; untouched ones are shared, not copied)
    adapter : Adapter

    Returns
    -------
    dict of the base's names; a whole weight that the adapter carries (a head) replaces the base's
    """
    deltas = adapter_deltas(params, adapter)
    whole = {name: array for name, array in adapter.weights.items() if name in params}
    return {**params, **{name: params[name] + delta for name, delta in deltas.items()}, **whole}


def unmerge(merged, adapter, params=None):
    """Take the adapter's update out of merged weights again: W = W′ − ΔW.

    Floating-point addition rounds, so the weights come back to about one unit in the last place and
    not bit for bit; keep the base where that matters.

    Parameters
    ----------
    merged : dict, from `merge`
    adapter : Adapter, the same
    params : dict or None, weights to put back in the place of whole ones that `merge` replaced (a head)

    Returns
    -------
    dict of the base's names
    """
    deltas = adapter_deltas(merged, adapter)
    whole = {name: params[name] for name in adapter.weights if params is not None and name in params}
    return {**merged, **{name: merged[name] - delta for name, delta in deltas.items()}, **whole}
