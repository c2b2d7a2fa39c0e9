"""Tier 5: the operations of a BERT encoder that GPT-2 does not have, and a whole encoder."""

from .draws import bell, bits_of
from .model import SIZES, model_case
from .operations import operation_case


def encoder_case(id, *about, **changes):
    base = {**SIZES, "n_types": 2, "pooling": "mean", "n_classes": 4}
    return model_case(id, *about, base=base, **changes)._replace(tier=5, kind="bert")


def bert_cases():
    """The cases of tier 5."""
    bits, qkv = bits_of("gelu erf, x"), dict.fromkeys(("q", "k", "v"), (2, 5, 18))
    return [
        operation_case("gelu_erf", "gelu-erf", {}, {"x": bell(bits, (3, 7), 1.5), "grad.y": (3, 7)},
                       "y = x Φ(x), with erf", "the tanh form in the erf form's place", tier=5, bits=bits),
        operation_case("mean_pool", "mean-pool", {}, {"x": (3, 4, 5), "lengths": [2, 4, 1], "grad.y": (3, 5)},
                       "the mean over each row's non-padding tokens", "padding in the mean; the sum of all lengths",
                       tier=5),
        operation_case("encoder_attention", "encoder-attention", {"n_heads": 3},
                       {**qkv, "lengths": [5, 3], "grad.context": (2, 5, 18)}, "three heads of 6; row 1 is padded",
                       "a causal mask; padding that is read; no mask in padded rows", tier=5),
        encoder_case("bert-classifier", "an encoder with mean pooling, a head and dropout, all parameters trained; row "
                     "1 is padded", "norms before the branches; a token type forgotten; the tanh GELU; no bias of the "
                     "head", dropout=0.25, layer_norm_eps=1e-3),
    ]  # fmt: skip
