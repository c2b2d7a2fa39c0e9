"""What a run trains: the whole model or some of it, or an adapter on the frozen model."""

from ..adapters import Adapter, trained_weights
from ..model import draw_masks, loss_and_gradients
from .adamw import AdamW


def trainable_arrays(params, adapter=None):
    """What is trained: the arrays of an adapter that are not frozen, or without one the whole model."""
    return params if adapter is None else trained_weights(adapter)


def attach(params, adapter, trainable):
    """The model that the trainable arrays make.

    Parameters
    ----------
    params : dict of the base weights
    adapter : Adapter whose arrays the trainable ones take the place of, or None where base weights
        themselves are trained
    trainable : dict of the arrays in training: an adapter's weights, or base weights under their names

    Returns
    -------
    params : dict, the base's arrays, with the trained ones in their place
    adapter : Adapter or None
    """
    if adapter is None:
        return {**params, **trainable}, None
    return params, Adapter(adapter.config, {**adapter.weights, **trainable})


def model_objective(params, config, adapter=None):
    """The objective that `train` asks for: loss and gradients of the trainable arrays on one shard.

    Parameters
    ----------
    params : dict of the base weights
    config : ModelConfig
    adapter : Adapter at its start, or None where base weights themselves are trained

    Returns
    -------
    function (trainable, batch, rng) -> Objective; rng draws the dropout masks
    """

    def objective(trainable, batch, rng):
        model, attached = attach(params, adapter, trainable)
        dtype = params["tok_emb.weight"].dtype
        masks = draw_masks(config, batch.ids.shape, rng, attached, dtype)
        return loss_and_gradients(model, batch, config, attached, tuple(trainable), masks)

    return objective


def adapter_optimiser(adapter=None, weight_decay=0.01):
    """AdamW with the learning rates that an adapter's settings ask for (`AdapterConfig.rate_factors`)."""
    factors = {} if adapter is None else adapter.config.rate_factors
    return AdamW(weight_decay=weight_decay, rate_factors=factors)
