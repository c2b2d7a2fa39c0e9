"""Drawing the dropout masks of one forward pass, as a flat dict of named arrays."""

from ..adapters import adapter_parts
from ..ops import dropout_mask


def draw_masks(config, shape, rng, adapter=None, dtype="float32"):
    """Every mask that one training pass will use.

    The names are those of the places: "embed" after the embeddings, "blocks.0.attn" and "blocks.0.mlp"
    on the residual branches, "blocks.0.attn.q_proj.adapter" on an adapter's input.

    Parameters
    ----------
    config : ModelConfig, whose dropout serves the first three
    shape : (B, T)
    rng : np.random.Generator
    adapter : Adapter or None, whose config.dropout serves the last
    dtype : the parameters' dtype

    Returns
    -------
    dict, name -> array (B, T, width) with 0 or 1/(1−p); empty where nothing is dropped
    """
    masks = {}
    if config.dropout:
        names = ["embed"]
        for i in range(config.n_layers):
            names += [f"blocks.{i}.attn", f"blocks.{i}.mlp"]
        masks = {
            name: dropout_mask((*shape, config.d_model), config.dropout, rng, dtype) for name in names
        }
    if adapter is not None and adapter.config.dropout:
        for module in adapter_parts(adapter):
            width = config.d_ff if module.endswith("down_proj") else config.d_model
            masks[f"{module}.adapter"] = dropout_mask((*shape, width), adapter.config.dropout, rng, dtype)
    return masks
