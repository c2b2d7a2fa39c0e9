"""transformers' Llama with lora_np's weights, in float64 from end to end, and what PEFT trains in it."""

import re

import numpy as np
import torch
import transformers
from torch import nn
from transformers.models.llama import modeling_llama

from .. import tiny
from .peft_model import trained_parameters
from .torch_model import random_batch

OURS_AND_THEIRS = (
    ("blocks.", "model.layers."),
    (".attn.", ".self_attn."),
    (".norm1", ".input_layernorm"),
    (".norm2", ".post_attention_layernorm"),
    ("tok_emb", "model.embed_tokens"),
    ("norm_f", "model.norm"),
)


class InFloat64:
    """PyTorch whose float32 is float64, for transformers' Llama: the only patch of it that these tests make.

    A float64 Llama has four casts to float32, each of which names the dtype, and so becomes a cast to float64:

    - `LlamaRMSNorm.forward` normalises in float32: `hidden_states.to(torch.float32)`;
    - `LlamaRotaryEmbedding.compute_default_rope_parameters` computes the frequencies in float32, `dtype=torch.float`;
    - `LlamaRotaryEmbedding.forward` computes the angles, cosines and sines in float32: `dtype=torch.float`. Its other
      cast, `position_ids.float()`, is of whole numbers and exact;
    - `eager_attention_forward` has a softmax in float32: `dtype=torch.float32`.

    The loss is not transformers', which casts the logits: `loss_of` takes them as they are.
    """

    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def in_float64(monkeypatch):
    """Apply the patch until the end of a test."""
    monkeypatch.setattr(modeling_llama, "torch", InFloat64())


def hf_name(name, n_classes=0):
    """transformers' name of a parameter or layer."""
    for ours, theirs in OURS_AND_THEIRS:
        name = name.replace(ours, theirs)
    return re.sub(r"^head\b", "score" if n_classes else "lm_head", name)


def our_name(name):
    """The way back."""
    for ours, theirs in OURS_AND_THEIRS:
        name = name.replace(theirs, ours)
    return re.sub(r"^(score|lm_head)\b", "head", name)


def hf_config(config, **more):
    """transformers' configuration for a LlamaConfig. A padding token would get no gradient from the embedding."""
    return transformers.LlamaConfig(
        **dict(
            vocab_size=config.vocab_size, hidden_size=config.d_model, intermediate_size=config.d_ff,
            num_hidden_layers=config.n_layers, num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads, head_dim=config.head_size, num_labels=config.n_classes or 2,
            max_position_embeddings=config.n_positions, rms_norm_eps=config.rms_norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            attention_bias=config.attention_bias, mlp_bias=config.mlp_bias, tie_word_embeddings=config.tied,
            pad_token_id=0 if config.n_classes else None, bos_token_id=None, eos_token_id=None,
            use_cache=False, attn_implementation="eager",
        ) | more
    )  # fmt: skip


def hf_model(params, config, **more):
    """transformers' model with our weights, in their dtype."""
    kind = transformers.LlamaForSequenceClassification if config.n_classes else transformers.LlamaForCausalLM
    model = kind(hf_config(config, **more)).to(torch.tensor(params["tok_emb.weight"]).dtype).eval()
    theirs = {hf_name(name, config.n_classes): torch.tensor(array) for name, array in params.items()}
    missing, unexpected = model.load_state_dict(theirs, strict=False)
    is_tied = config.tied and not config.n_classes
    assert missing == ["lm_head.weight"] * is_tied and not unexpected
    return model


class Logits(nn.Module):
    """A Llama of transformers, adapted by PEFT or not, that is called as `TorchModel` is."""

    def __init__(self, model, n_classes=0):
        super().__init__()
        self.model, self.n_classes = model, n_classes

    def forward(self, ids, lengths):
        """A classifier's padding is masked; a language model's is not, so that all T positions compare."""
        real = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        return self.model(input_ids=ids, **({"attention_mask": real} if self.n_classes else {})).logits


def hf_trained(model):
    """What is trained, under our names: by PEFT or, without an adapter, all parameters."""
    if hasattr(model, "peft_config"):
        return {our_name(name): parameter for name, parameter in trained_parameters(model).items()}
    return {our_name(name): parameter for name, parameter in model.named_parameters()}


# ---------------------------------------------------------------- cases

# Sizes that differ from one another; the head size is 6 except once, because at 4 pairs of rows are easily mistaken.
LLAMAS = {
    "H/K = 3, tied": dict(n_heads=6, n_kv_heads=2, rope_theta=500.0),
    "H/K = 2, untied": dict(n_heads=4, n_kv_heads=2, tied=False, rope_theta=100000.0, rms_norm_eps=1e-3),
    "H/K = 1, square, biases": dict(
        n_heads=2, n_kv_heads=2, attention_bias=True, mlp_bias=True, rope_theta=2.5, rms_norm_eps=0.3
    ),
    "one key, untied, attention's biases": dict(n_heads=3, n_kv_heads=1, tied=False, attention_bias=True),
    "head size 10, the MLP's biases": dict(n_heads=3, n_kv_heads=3, head_size=10, mlp_bias=True, rms_norm_eps=1e-6),
}


def odd_llama(name, n_classes=0):
    return tiny.tiny_llama(vocab_size=17, n_positions=9, n_classes=n_classes, **LLAMAS[name])


def llama_case(name, n_classes, seed, lengths=(5, 2, 4, 1)):
    """(rng, config, params, batch); of a language model's targets some more are ignored, and all of the second row."""
    rng, config = np.random.default_rng(seed), odd_llama(name, n_classes)
    batch = random_batch(config, rng, lengths)
    if not n_classes:
        batch.targets[0, 1] = batch.targets[1] = -100
    return rng, config, tiny.random_params(config, seed=rng), batch
