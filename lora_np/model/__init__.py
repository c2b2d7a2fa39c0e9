"""The transformer: configuration, initial weights, forward and backward."""

from .architectures import architecture, modules
from .decoder import Decoder, Past, empty_past, make_decoder, next_logits
from .generate import generate, generate_tokens
from .gpt2 import ModelConfig
from .initial import add_head, initial_params, parameter_shapes
from .llama import LlamaConfig
from .masks import draw_masks
from .objective import Objective, loss_and_gradients, predict_logits
from .passes import ForwardCache, backward, cache_bytes, cached_arrays, forward
from .sampling import GREEDY, Sampling, next_probabilities
