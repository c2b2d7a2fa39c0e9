"""What a run trains: the whole model or some of it, or an adapter on the frozen model."""

from ..adapters import Adapter
from ..model import draw_masks, loss_and_gradients


def attach(params, adapter_config, trainable):
    """The model that the trainable arrays make.

    Parameters
    ----------
    params : dict of the base weights
    adapter_config : AdapterConfig, or None where base weights themselves are trained
    trainable : dict of the arrays in training: an adapter's weights, or base weights under their names

    Returns
    -------
    params : dict, the base's arrays, with the trained ones in their place
    adapter : Adapter or None
    """
    if adapter_config is None:
        return {**params, **trainable}, None
    return params, Adapter(adapter_config, trainable)


def model_objective(params, config, adapter_config=None):
    """The objective that `train` asks for: loss and gradients of the trainable arrays on one shard.

    Parameters
    ----------
    params : dict of the base weights
    config : ModelConfig
    adapter_config : AdapterConfig, or None where base weights themselves are trained

    Returns
    -------
    function (trainable, batch, rng) -> Objective; rng draws the dropout masks
    """

    def objective(trainable, batch, rng):
        model, adapter = attach(params, adapter_config, trainable)
        dtype = params["tok_emb.weight"].dtype
        masks = draw_masks(config, batch.ids.shape, rng, adapter, dtype)
        return loss_and_gradients(model, batch, config, adapter, tuple(trainable), masks)

    return objective
