"""The one door through which every linear layer of the model goes, adapted or not."""

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
    wanted = call.operands_wanted(module)
    if module not in call.adapter_parts:
        return linear_forward(x, weight, bias, wanted)
    config = module_config(call.adapter_config, module)
    mask = call.masks.get(f"{module}.adapter")
    return KINDS[config.kind].forward(
        x, weight, bias, call.adapter_parts[module], config, wanted, mask
    )


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
