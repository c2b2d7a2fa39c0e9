"""Tier 5: the operations of a BERT encoder that GPT-2 does not have, and a whole encoder."""

import numpy as np

from .draws import bell, bits_of
from .model import SIZES, model_case
from .operations import bells, operation_case


def ragged_case(kind, id, settings, shapes, lengths, *about):
    """A case with right-padded rows. `shapes` is a dict, array -> shape, in which the upstream gradient comes last."""
    arrays = list(bells(bits_of(id), shapes).items())
    inputs = dict([*arrays[:-1], ("lengths", np.array(lengths)), arrays[-1]])
    return operation_case(kind, id, settings, inputs, *about, tier=5)


def encoder_case(id, *about, **changes):
    base = {**SIZES, "n_types": 2, "pooling": "mean", "n_classes": 4}
    return model_case(id, *about, base=base, **changes)._replace(tier=5, kind="bert")


def bert_cases():
    """The cases of tier 5."""
    bits, qkv = bits_of("gelu erf, x"), dict.fromkeys(("q", "k", "v", "grad.context"), (2, 5, 18))
    return [
        operation_case("gelu_erf", "gelu-erf", {}, {"x": bell(bits, (3, 7), 1.5), "grad.y": bell(bits, (3, 7))},
                       "y = x Φ(x), with erf", "the tanh form in the erf form's place", tier=5),
        ragged_case("mean_pool", "mean-pool", {}, {"x": (3, 4, 5), "grad.y": (3, 5)}, [2, 4, 1],
                    "the mean over each row's non-padding tokens", "padding in the mean; the sum of all lengths"),
        ragged_case("encoder_attention", "encoder-attention", {"n_heads": 3}, qkv, [5, 3],
                    "three heads of 6; row 1 is padded", "a causal mask; padding that is read; no mask in padded rows"),
        encoder_case("bert-classifier", "an encoder with mean pooling, a head and dropout, all parameters trained; row "
                     "1 is padded", "norms before the branches; a token type forgotten; the tanh GELU; no bias of the "
                     "head", dropout=0.25, layer_norm_eps=1e-3),
    ]  # fmt: skip
