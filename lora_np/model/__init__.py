"""The transformer: configuration, initial weights, forward and backward."""

from .config import ModelConfig
from .initial import add_head, initial_params, parameter_shapes
from .masks import draw_masks
from .objective import Objective, cache_bytes, loss_and_gradients, predict_logits
from .transformer import ForwardCache, backward, forward

__all__ = [
    "ForwardCache",
    "ModelConfig",
    "Objective",
    "add_head",
    "backward",
    "cache_bytes",
    "draw_masks",
    "forward",
    "initial_params",
    "loss_and_gradients",
    "parameter_shapes",
    "predict_logits",
]
