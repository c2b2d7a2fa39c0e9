"""The transformer: configuration, initial weights, forward and backward."""

from .config import ModelConfig
from .generate import Decoder, Past, empty_past, generate, make_decoder, next_logits
from .initial import add_head, initial_params, parameter_shapes
from .masks import draw_masks
from .objective import Objective, cache_bytes, loss_and_gradients, predict_logits
from .transformer import ForwardCache, backward, forward

__all__ = [
    "Decoder",
    "ForwardCache",
    "ModelConfig",
    "Objective",
    "Past",
    "add_head",
    "backward",
    "cache_bytes",
    "draw_masks",
    "empty_past",
    "forward",
    "generate",
    "initial_params",
    "loss_and_gradients",
    "make_decoder",
    "next_logits",
    "parameter_shapes",
    "predict_logits",
]
