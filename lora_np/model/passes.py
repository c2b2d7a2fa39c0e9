"""One forward pass and its backward pass.

Every activation has a name, such as `blocks.0.attn.probs`. Pass a dict as `record`, and `forward` fills it with the
activations, in execution order. Pass another dict to `backward`, and it is filled with the gradients of the loss with
respect to those activations, under the same names, in reverse order.
"""

from typing import NamedTuple

import numpy as np

from .architectures import architecture
from .call import Call, begin
from .layers import backward_layers, forward_layers


class ForwardCache(NamedTuple):
    """The values that `backward` needs."""

    call: Call
    ops: dict  # layer -> its operation's cache
    shapes: dict  # layer computed at one position -> shapes of its inputs
    inputs: list  # with recompute: the input of each block, (B, T, C)


def forward(
    params,
    ids,
    config,
    *,
    lengths=None,
    adapter=None,
    wanted=(),
    masks=None,
    record=None,
    wrap=None,
    head=True,
    recompute=False,
):
    """Run the model.

    Parameters
    ----------
    params : dict of the base weights (`initial_params`, `load_model`)
    ids : int array (B, T), right-padded; T at most config.n_positions
    config : the model's configuration
    lengths : int array (B,), the number of non-padding tokens in each row, or None if no row is padded. A classifier
        reads the last non-padding token.
    adapter : Adapter or None; or, in evaluation, a list with an Adapter or None for each row
    wanted : names of the parameters, the base's or the adapter's, whose gradients `backward` computes. The cache keeps
        only the arrays that the wanted gradients need; if `wanted` is (), it keeps none.
    masks : dict of dropout masks from `draw_masks`; None in evaluation
    record : dict that is filled with every activation, by name, in execution order; or None
    wrap : function (run) -> run that wraps each layer's computation, as in `analysis/costs.py`; or None
    head : bool; False omits the last layer, for a loss that computes the logits itself, in chunks
    recompute : bool, gradient checkpointing: keep only each block's input, and let `backward` run the block again (Chen
        et al. 2016, Training Deep Nets with Sublinear Memory Cost). This saves memory, but costs a second forward pass

    Returns
    -------
    logits : array (B, T, V) for a language model, (B, n_classes) for a classifier; with head=False, the head's input
    cache : ForwardCache

    Raises
    ------
    ValueError
        If ids are outside the vocabulary, a sequence is longer than n_positions, or a wanted name is unknown.
    """
    call = begin(params, ids, config, lengths, adapter, wanted, masks)
    if head and "head" not in call.modules:
        raise ValueError("head: this encoder has no head; pass head=False, or add one with `add_head`")
    cache = ForwardCache(call, {}, {}, [])
    wrap = wrap or (lambda run: run)

    def block_run(x):
        if not recompute:
            return run
        cache.inputs.append(x)
        return wrap(forward_layers(cache._replace(ops={}, shapes={}), record))  # its caches are dropped

    run = wrap(forward_layers(cache, record))
    x = hidden_states(ids, config, run, block_run=block_run)
    h = architecture(config).output_forward(x, config, run)
    return run("head", h) if head else h, cache


def hidden_states(ids, config, run, start=0, block_run=None):
    """Apply the embeddings and blocks to ids (B, T), and return (B, T, C).

    `start` is the position of each row's first id. `block_run(x)` returns the `run` for a block whose input is x; if
    `block_run` is None, every block uses `run`. A classifier's last block may return only one position in each row,
    (B, 1, C).
    """
    model = architecture(config)
    x = model.embed_forward(ids, run, start)  # (B, T, C)
    for i in range(config.n_layers):
        x = model.block_forward(x, i, config, run if block_run is None else block_run(x))
    return x


def backward(dlogits, cache, record=None, wrap=None, head=True, grads=None, release=None):
    """Compute the gradients of the wanted parameters, from the head back to the embeddings.

    Below the lowest trained layer, gradients are None and nothing is computed.

    Parameters
    ----------
    dlogits : array, the gradient of the loss with respect to the forward pass's result, of the same shape
    cache : ForwardCache, from `forward`
    record : dict that is filled with the gradient of every activation, under the same names as in `forward`, in reverse
        order; or None. Gradients that no wanted parameter needs are omitted.
    wrap : function (back) -> back, as in `forward`; or None
    head : bool, as in `forward`
    grads : dict of gradients that are already known, such as the head's; if the head is tied, the embedding's gradient
        is added to it. None means that no gradients are known
    release : function (grads, incomplete=names), called after each block; see `loss_and_gradients`. Or None

    Returns
    -------
    dict, parameter name -> gradient, with the parameter's shape, for exactly the names in `wanted` (of which `release`
        may have removed some)
    """
    grads, config = {} if grads is None else grads, cache.call.config
    model, wrap = architecture(config), wrap or (lambda back: back)
    back = wrap(backward_layers(cache, grads, record))
    dh = back("head", dlogits) if head else dlogits
    dx = model.output_backward(dh, config, back)
    for i in reversed(range(config.n_layers)):
        if not cache.inputs:
            dx = model.block_backward(dx, i, config, back)
        elif dx is not None:
            again = cache._replace(ops={}, shapes={})
            model.block_forward(cache.inputs[i], i, config, forward_layers(again))
            dx = model.block_backward(dx, i, config, wrap(backward_layers(again, grads, record)))
        if release is not None:
            release(grads, incomplete=("tok_emb.weight",))
    model.embed_backward(dx, back)
    return grads


def cached_arrays(cache):
    """The arrays that a forward pass keeps for its backward pass, by layer and field.

    An array that several layers keep is listed only once. A view is listed as the array that owns its memory.
    Parameters are omitted, because they are in memory anyway.

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
    for layer, op_cache in {**cache.ops, "blocks": tuple(cache.inputs)}.items():
        for name, array in arrays(layer, op_cache):
            if id(array) not in seen:
                seen.add(id(array))
                by_name[name] = array
    return by_name


def owner(array):
    """The array that owns the memory of a view."""
    return owner(array.base) if isinstance(array.base, np.ndarray) else array  # the base may be a file's bytes


def cache_bytes(cache):
    """The size in bytes of the activations that a forward pass keeps for its backward pass; see `cached_arrays`."""
    return sum(array.nbytes for array in cached_arrays(cache).values())
