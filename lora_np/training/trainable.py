"""What a run trains: the whole model or a part of it, or an adapter of the frozen model."""

from ..adapters import Adapter, trained_weights
from ..model import draw_masks, loss_and_gradients
from .adamw import AdamW


def trainable_arrays(params, adapter=None):
    """The arrays to train: the adapter's arrays that are not frozen; without an adapter, the whole model."""
    return params if adapter is None else trained_weights(adapter)


def attach(params, adapter, trainable):
    """Put the trainable arrays into the model.

    Parameters
    ----------
    params : dict of the base weights
    adapter : Adapter whose arrays the trainable ones replace, or None if they replace base weights
    trainable : dict of the arrays in training: an adapter's weights, or base weights under their names

    Returns
    -------
    params : dict of the base weights, including trained ones
    adapter : Adapter or None
    """
    if adapter is None:
        return {**params, **trainable}, None
    return params, Adapter(adapter.config, {**adapter.weights, **trainable})


def model_objective(params, config, adapter=None, class_weights=None, recompute=False):
    """The objective for `train`: loss and gradients of the trainable arrays on one shard.

    Parameters
    ----------
    params : dict of the base weights
    config : ModelConfig or LlamaConfig
    adapter : Adapter at its start, or None if base weights themselves are trained
    class_weights : array (n_classes,), see `cross_entropy_forward`, or None
    recompute : bool, see `lora_np.model.forward`

    Returns
    -------
    function (trainable, batch, rng) -> Objective; rng draws the dropout masks
    """

    def objective(trainable, batch, rng):
        model, attached = attach(params, adapter, trainable)
        dtype = params["tok_emb.weight"].dtype
        masks = draw_masks(config, batch.ids.shape, rng, attached, dtype)
        return loss_and_gradients(model, batch, config, attached, tuple(trainable), masks, class_weights, recompute)

    return objective


def adapter_optimiser(adapter=None, weight_decay=0.01):
    """AdamW with the learning-rate factors of an adapter's settings (`AdapterConfig.rate_factors`)."""
    factors = {} if adapter is None else adapter.config.rate_factors
    return AdamW(weight_decay=weight_decay, rate_factors=factors)
