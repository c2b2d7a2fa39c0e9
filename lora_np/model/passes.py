"""One forward pass and its backward pass.

Every activation has a name, such as `blocks.0.attn.probs`. Pass a dict as `record` and the forward pass fills it in
execution order; pass another to `backward` and it is filled with the gradients of the loss with respect to those
activations, under the same names, in reverse order.
"""

from typing import NamedTuple

import numpy as np

from .call import Call, begin
from .gpt2 import model_backward, model_forward
from .layers import backward_layers, forward_layers


class ForwardCache(NamedTuple):
    """What `backward` needs: the call, and each layer's cache by its name."""

    call: Call
    ops: dict


def forward(params, ids, config, *, lengths=None, adapter=None, wanted=(), masks=None, record=None):
    """Run the model.

    Parameters
    ----------
    params : dict of the base weights (`initial_params`, `load_model`)
    ids : int array (B, T), right-padded; T at most config.n_positions
    config : ModelConfig
    lengths : int array (B,), the real tokens of each row; a classifier reads the last of them.
        None: no row is padded.
    adapter : Adapter or None; or, in evaluation, a list with one of them for each row
    wanted : names of the parameters, the base's or the adapter's, whose gradients `backward` will be
        asked for. Nothing is kept for any other; with () nothing is kept at all.
    masks : dict of dropout masks from `draw_masks`, or None in evaluation
    record : dict to be filled with every activation, by name, in execution order; or None

    Returns
    -------
    logits : array (B, T, V) of a language model, (B, n_classes) of a classifier
    cache : ForwardCache

    Raises
    ------
    ValueError
        For ids outside the vocabulary, a sequence longer than the position table, or unknown names.
    """
    call = begin(params, ids, config, lengths, adapter, wanted, masks)
    cache = ForwardCache(call, {})
    return model_forward(ids, config, forward_layers(call, cache.ops, record)), cache


def backward(dlogits, cache, record=None):
    """Gradients of the wanted parameters.

    Parameters
    ----------
    dlogits : array, the loss's gradient with respect to the logits, of their shape
    cache : ForwardCache, from `forward`
    record : dict to be filled with the gradient of every activation, by the names that `forward`
        gave them, in reverse order; or None. Gradients that no wanted parameter needs are absent.

    Returns
    -------
    dict, parameter name -> gradient of its shape: exactly the names in `wanted`
    """
    grads = {}
    model_backward(dlogits, cache.call.config, backward_layers(cache, grads, record))
    return grads


def cached_arrays(cache):
    """The arrays that a forward pass holds for its backward pass, by layer and field.

    An array that several layers hold is listed once, a view as the array that it looks into. Parameters, which
    exist anyway, are left out.

    Parameters
    ----------
    cache : ForwardCache

    Returns
    -------
    dict, such as {"blocks.0.attn.q_proj.x": array}
    """

    def arrays(name, value):
        if isinstance(value, np.ndarray):
            yield name, owner(value)
        elif isinstance(value, tuple):
            fields = getattr(value, "_fields", [""] * len(value))
            for field, item in zip(fields, value):
                yield from arrays(f"{name}.{field}", item)

    seen = {id(array) for parameter in cache.call.params.values() for _, array in arrays("", parameter)}
    by_name = {}
    for layer, (op_cache, _) in cache.ops.items():
        for name, array in arrays(layer, op_cache):
            if id(array) not in seen:
                seen.add(id(array))
                by_name[name] = array
    return by_name


def owner(array):
    """The array that owns the memory of a view."""
    return array if array.base is None else owner(array.base)


def cache_bytes(cache):
    """Bytes of the activations that a forward pass holds for its backward pass; see `cached_arrays`."""
    return sum(array.nbytes for array in cached_arrays(cache).values())
