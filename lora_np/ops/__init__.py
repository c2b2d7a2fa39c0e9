"""The operations, each with a forward and a backward pass, written only in NumPy.

For an operation ``x``, ``x_forward`` returns ``(output, cache)``, and ``x_backward(doutput, cache)`` returns a
NamedTuple of gradients, in the order of the forward pass's operands. ``wanted`` names the operands whose gradients are
needed. The cache contains only the arrays that these gradients need. The backward pass computes only the wanted
gradients; the other fields of its result are None.
"""

from .attention import attention_backward, attention_forward, attention_scores
from .cross_entropy import IGNORE_INDEX, cross_entropy_backward, cross_entropy_forward, target_weights
from .dropout import dropout_backward, dropout_forward, dropout_mask
from .embedding import embedding_backward, embedding_forward
from .gelu import gelu_backward, gelu_forward
from .gelu_erf import gelu_erf_backward, gelu_erf_forward
from .layer_norm import layer_norm_backward, layer_norm_forward
from .linear import linear_backward, linear_forward
from .linear_cross_entropy import linear_cross_entropy_backward, linear_cross_entropy_forward
from .low_rank import low_rank_backward, low_rank_forward
from .mean_pool import mean_pool_backward, mean_pool_forward
from .rms_norm import rms_norm_backward, rms_norm_forward
from .rope import consecutive_tables, rope_backward, rope_forward, rope_tables
from .scale import scale_backward, scale_forward
from .softmax import softmax_backward, softmax_forward
from .swiglu import swiglu_backward, swiglu_forward
from .token_log_probs import token_log_probs_backward, token_log_probs_forward
from .wanted import add, operands_wanted, present

__all__ = [
    "IGNORE_INDEX", "add", "attention_backward", "attention_forward", "attention_scores", "consecutive_tables",
    "cross_entropy_backward", "cross_entropy_forward", "dropout_backward", "dropout_forward", "dropout_mask",
    "embedding_backward", "embedding_forward", "gelu_backward", "gelu_erf_backward", "gelu_erf_forward",
    "gelu_forward", "layer_norm_backward", "layer_norm_forward", "linear_backward", "linear_cross_entropy_backward",
    "linear_cross_entropy_forward", "linear_forward", "low_rank_backward", "low_rank_forward", "operands_wanted",
    "present", "rms_norm_backward", "rms_norm_forward", "rope_backward", "rope_forward", "rope_tables",
    "scale_backward", "scale_forward", "softmax_backward", "softmax_forward", "swiglu_backward", "swiglu_forward",
    "target_weights", "token_log_probs_backward", "token_log_probs_forward",
]  # fmt: skip
