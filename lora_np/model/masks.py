"""The dropout masks of one forward pass, as a flat dict of named arrays."""

from ..adapters import layer_arrays
from ..ops import dropout_mask
from .architectures import modules


def draw_masks(config, shape, rng, adapter=None, dtype="float32"):
    """Draw all dropout masks for one training pass.

    Masks are named after the place where they are applied: "embed" after the embeddings, "blocks.0.attn" and
    "blocks.0.mlp" on the residual branches, and "blocks.0.attn.q_proj.adapter" on an adapter's input.

    Parameters
    ----------
    config : the model's configuration; its dropout is the p of all masks except the adapter's
    shape : (B, T)
    rng : np.random.Generator
    adapter : Adapter or None; its config.dropout is the p of its own masks
    dtype : the parameters' dtype

    Returns
    -------
    dict, name -> array of 0 and 1/(1−p), (B, T, width), or (B, 1, width) for a classifier's layers that are computed at
    only one position; masks with p = 0 are omitted
    """
    B, T = shape
    layers = modules(config)

    def mask(module, width, p):
        return dropout_mask((B, 1 if module.one_position else T, width), p, rng, dtype)

    masks = {}
    if config.dropout:
        masks = {m.mask_name: mask(m, m.width, config.dropout) for m in layers.values() if m.width}
    if adapter is not None and adapter.config.dropout:
        for name in layer_arrays(adapter):
            masks[f"{name}.adapter"] = mask(layers[name], layers[name].shape[1], adapter.config.dropout)
    return masks
