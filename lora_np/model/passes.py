"""One forward pass and its backward pass.

Every activation has a name, such as `blocks.0.attn.probs`. Pass a dict as `record` and the forward pass fills it in
execution order; pass another to `backward` and it is filled with the gradients of the loss with respect to those
activations, under the same names, in reverse order.
"""

from typing import NamedTuple

import numpy as np

from .call import Call, begin
from .gpt2 import block_backward, block_forward, embed_backward, embed_forward
from .layers import backward_layers, forward_layers


class ForwardCache(NamedTuple):
    """What `backward` needs: the call, and each layer's cache by its name."""

    call: Call
    ops: dict


def forward(params, ids, config, *, lengths=None, adapter=None, wanted=(), masks=None, record=None, around=None):
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
    around : function (run) -> run, to observe each layer, as counting costs does; or None

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
    run = forward_layers(call, cache.ops, record)
    return compute_logits(ids, config, run if around is None else around(run)), cache


def compute_logits(ids, config, run, start=0):
    """The way through the model: ids (B, T), the first at position `start`, to (B, T, V) or (B, n_classes)."""
    x = embed_forward(ids, run, start)  # (B, T, C)
    for i in range(config.n_layers):
        x = block_forward(x, i, run)  # (B, T, C); (B, 1, C) after a classifier's last
    h = run("ln_f", x)  # like x
    if config.n_classes:
        h = run("pooled", h)  # (B, C)
    return run("head", h)


def backward(dlogits, cache, record=None, around=None):
    """Gradients of the wanted parameters: the way back, from the head to the embeddings.

    Below the lowest trained layer gradients are None, and nothing is computed.

    Parameters
    ----------
    dlogits : array, the loss's gradient with respect to the logits, of their shape
    cache : ForwardCache, from `forward`
    record : dict to be filled with the gradient of every activation, by the names that `forward`
        gave them, in reverse order; or None. Gradients that no wanted parameter needs are absent.
    around : function (back) -> back, as in `forward`; or None

    Returns
    -------
    dict, parameter name -> gradient of its shape: exactly the names in `wanted`
    """
    grads, config = {}, cache.call.config
    back = backward_layers(cache, grads, record)
    back = back if around is None else around(back)
    dh = back("head", dlogits)
    if config.n_classes:
        dh = back("pooled", dh)  # (B, 1, C)
    dx = back("ln_f", dh)
    for i in reversed(range(config.n_layers)):
        dx = block_backward(dx, i, back)
    embed_backward(dx, back)
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
