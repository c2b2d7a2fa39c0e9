"""The transformer: configuration, initial weights, and forward and backward passes."""

from .architecture import Architecture, LayerSpec, with_depths
from .architectures import ARCHITECTURES, architecture, check_writes, modules
from .bert import BertConfig
from .decoder import Decoder, KVCache, empty_cache, make_decoder, next_logits
from .generate import generate, generate_tokens, sample
from .gpt2 import GPT2Config
from .initial import add_head, initial_params, parameter_shapes
from .llama import LlamaConfig
from .llama_family import Qwen2Config, Qwen3Config, SmolLM3Config
from .masks import draw_masks
from .objective import Objective, loss_and_gradients, predict_logits, token_log_probs
from .passes import ForwardCache, backward, cache_bytes, cached_arrays, forward
from .sampling import GREEDY, Sampling, next_probabilities

__all__ = [
    "ARCHITECTURES", "Architecture", "BertConfig", "Decoder", "ForwardCache", "GREEDY", "KVCache", "LayerSpec",
    "LlamaConfig", "GPT2Config", "Objective", "Qwen2Config", "Qwen3Config", "Sampling", "SmolLM3Config", "add_head",
    "architecture", "backward", "cache_bytes", "cached_arrays", "check_writes", "draw_masks", "empty_cache", "forward",
    "generate", "generate_tokens", "initial_params", "loss_and_gradients", "make_decoder", "modules", "next_logits",
    "next_probabilities", "parameter_shapes", "predict_logits", "sample", "token_log_probs", "with_depths",
]  # fmt: skip
