"""The one door through which every linear layer of the model goes, adapted or not."""

import numpy as np

from ..adapters import KINDS, module_config
from ..ops import linear_backward, linear_forward


def project_forward(x, module, call):
    """Apply the linear layer named `module`, with the adapter that is attached to that name, if any.

    Parameters
    ----------
    x : array (..., in)
    module : str, such as "blocks.0.attn.q_proj"
    call : the forward pass that this is part of (call.Call)

    Returns
    -------
    y : array (..., out)
    cache : LinearCache, or the cache of the adapter's kind
    """
    weight, bias = call.params[f"{module}.weight"], call.params.get(f"{module}.bias")
    if call.groups:
        return rows_forward(x, module, call), None
    wanted = call.operands_wanted(module)
    if module not in call.adapter_parts:
        return linear_forward(x, weight, bias, wanted)
    config = module_config(call.adapter_config, module)
    mask = call.masks.get(f"{module}.adapter")
    return KINDS[config.kind].forward(x, weight, bias, call.adapter_parts[module], config, wanted, mask)


def rows_forward(x, module, call):
    """The layer of a batch whose rows have adapters of their own; each row's result is that of a pass without the rest.

    Rows whose weight is the base's and that have no adapter here go through one product; the others
    go through their adapter's kind, group by group.

    Parameters
    ----------
    x : array (B, ..., in)
    module : str
    call : the forward pass, with groups
    """
    base, bias = call.params.get(f"{module}.weight"), call.params.get(f"{module}.bias")
    n_out = call.groups[0].params[f"{module}.weight"].shape[0]
    y = np.empty((*x.shape[:-1], n_out), dtype=x.dtype)  # (B, ..., out)
    plain = []
    for group in call.groups:
        weight, rows = group.params[f"{module}.weight"], group.rows
        if module in group.adapter_parts:
            config = module_config(group.adapter_config, module)
            parts = group.adapter_parts[module]
            y[rows] = KINDS[config.kind].forward(x[rows], weight, bias, parts, config, ())[0]
        elif weight is base:
            plain.append(rows)
        else:
            y[rows] = linear_forward(x[rows], weight, bias, ())[0]
    if plain:
        rows = np.concatenate(plain)
        y[rows] = linear_forward(x[rows], base, bias, ())[0]
    return y


def project_backward(dy, module, cache, grads):
    """Put the layer's wanted gradients into `grads` under their parameters' names; return dx or None."""
    op_cache = cache.ops[module]
    if module in cache.call.adapter_parts:
        dx, found = KINDS[cache.call.adapter_config.kind].backward(dy, op_cache)
    else:
        dx, dweight, dbias = linear_backward(dy, op_cache)
        found = {"weight": dweight, "bias": dbias}
    grads |= {f"{module}.{leaf}": grad for leaf, grad in found.items() if grad is not None}
    return dx
