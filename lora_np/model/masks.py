"""Drawing the dropout masks of one forward pass, as a flat dict of named arrays."""

from ..adapters import adapter_parts
from ..ops import dropout_mask
from .config import positions_read


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
    dict, name -> array with 0 or 1/(1−p), (B, T, width), or (B, 1, width) where a classifier works at one
        position alone (`positions_read`); empty where nothing is dropped
    """
    B, T = shape

    def mask(module, width, p):
        return dropout_mask((B, positions_read(config, module, T), width), p, rng, dtype)

    masks = {}
    if config.dropout:
        names = ["embed"]
        for i in range(config.n_layers):
            names += [f"blocks.{i}.attn", f"blocks.{i}.mlp"]
        masks = {name: mask(name, config.d_model, config.dropout) for name in names}
    if adapter is not None and adapter.config.dropout:
        for module in adapter_parts(adapter):
            width = config.d_ff if module.endswith("down_proj") else config.d_model
            masks[f"{module}.adapter"] = mask(module, width, adapter.config.dropout)
    return masks
