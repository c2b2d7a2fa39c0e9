"""One forward pass and its backward pass.

Every activation has a name, such as `blocks.0.attn.probs`. Pass a dict as `record`, and `forward` fills it with the
activations, in execution order. Pass another dict to `backward`, and it is filled with the gradients of the loss with
respect to those activations, under the same names, in reverse order.
"""

from typing import NamedTuple

import numpy as np

from .call import Call, begin
from .gpt2 import block_backward, block_forward, embed_backward, embed_forward
from .layers import backward_layers, forward_layers


class ForwardCache(NamedTuple):
    """What `backward` needs."""

    call: Call
    ops: dict  # layer -> its operation's cache
    shapes: dict  # layer that works at one position -> shapes of its inputs


def forward(params, ids, config, *, lengths=None, adapter=None, wanted=(), masks=None, record=None, around=None):
    """Run the model.

    Parameters
    ----------
    params : dict of the base weights (`initial_params`, `load_model`)
    ids : int array (B, T), right-padded; T at most config.n_positions
    config : ModelConfig
    lengths : int array (B,), the number of real tokens in each row; a classifier reads the last of them.
        None: no row is padded.
    adapter : Adapter or None; or, in evaluation, a list with an Adapter or None for each row
    wanted : names of the parameters, the base's or the adapter's, whose gradients `backward` computes. The cache keeps
        only the arrays that these need; with () it keeps none.
    masks : dict of dropout masks from `draw_masks`, or None in evaluation
    record : dict that is filled with every activation, by name, in execution order; or None
    around : function (run) -> run that wraps the computation of each layer, as `analysis/costs.py` does; or None

    Returns
    -------
    logits : array (B, T, V) of a language model, (B, n_classes) of a classifier
    cache : ForwardCache

    Raises
    ------
    ValueError
        If ids are outside the vocabulary, a sequence is longer than the position table, or a wanted name is unknown.
    """
    call = begin(params, ids, config, lengths, adapter, wanted, masks)
    cache = ForwardCache(call, {}, {})
    run = forward_layers(cache, record)
    return compute_logits(ids, config, run if around is None else around(run)), cache


def compute_logits(ids, config, run, start=0):
    """The path through the model: ids (B, T), the first at position `start`, to (B, T, V) or (B, n_classes)."""
    x = embed_forward(ids, run, start)  # (B, T, C)
    for i in range(config.n_layers):
        x = block_forward(x, i, run)  # (B, T, C); (B, 1, C) after a classifier's last block
    h = run("ln_f", x)  # x's shape
    if config.n_classes:
        h = run("pooled", h)  # (B, C)
    return run("head", h)


def backward(dlogits, cache, record=None, around=None):
    """Gradients of the wanted parameters, from the head back to the embeddings.

    Below the lowest trained layer gradients are None, and nothing is computed.

    Parameters
    ----------
    dlogits : array of the logits' shape, the gradient of the loss with respect to them
    cache : ForwardCache, from `forward`
    record : dict that is filled with the gradient of every activation, under the names of `forward`, in reverse
        order; or None. Gradients that no wanted parameter needs are left out.
    around : function (back) -> back, as in `forward`; or None

    Returns
    -------
    dict, parameter name -> gradient of its shape, for exactly the names in `wanted`
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
    """The arrays that a forward pass keeps for its backward pass, by layer and field.

    An array that several layers keep is listed once. In place of a view, the array that owns the memory is listed.
    Parameters are left out, because they exist anyway.

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
    for layer, op_cache in cache.ops.items():
        for name, array in arrays(layer, op_cache):
            if id(array) not in seen:
                seen.add(id(array))
                by_name[name] = array
    return by_name


def owner(array):
    """The array that owns the memory of a view."""
    return owner(array.base) if isinstance(array.base, np.ndarray) else array  # a file's bytes are no array


def cache_bytes(cache):
    """Bytes of the activations that a forward pass keeps for its backward pass; see `cached_arrays`."""
    return sum(array.nbytes for array in cached_arrays(cache).values())
