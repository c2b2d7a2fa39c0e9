"""The transformer: configuration, initial weights, forward and backward."""

from .config import ModelConfig
from .decoder import Decoder, Past, empty_past, make_decoder, next_logits
from .generate import generate, generate_tokens
from .initial import add_head, initial_params, parameter_shapes
from .masks import draw_masks
from .objective import Objective, cache_bytes, loss_and_gradients, predict_logits
from .sampling import GREEDY, Sampling, next_probabilities
from .transformer import ForwardCache, backward, forward

__all__ = [
    "GREEDY",
    "Decoder",
    "ForwardCache",
    "ModelConfig",
    "Objective",
    "Past",
    "Sampling",
    "add_head",
    "backward",
    "cache_bytes",
    "draw_masks",
    "empty_past",
    "forward",
    "generate",
    "generate_tokens",
    "initial_params",
    "loss_and_gradients",
    "make_decoder",
    "next_logits",
    "next_probabilities",
    "parameter_shapes",
    "predict_logits",
]
