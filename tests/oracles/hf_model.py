"""transformers' models with lora_np's weights, in float64 from end to end."""

import re
from importlib import import_module

import torch
import transformers
from torch import nn

from lora_np.model import GPT2Config

OURS_AND_THEIRS = (
    ("blocks.", "model.layers."),
    (".attn.", ".self_attn."),
    (".norm1", ".input_layernorm"),
    (".norm2", ".post_attention_layernorm"),
    ("tok_emb", "model.embed_tokens"),
    ("norm_f", "model.norm"),
)
FAMILY = "llama", "mistral", "qwen2", "qwen3", "smollm3"
CONV1D = {"attn.o_proj": "attn.c_proj", "mlp.up_proj": "mlp.c_fc", "mlp.down_proj": "mlp.c_proj"}


class InFloat64:
    """PyTorch whose float32 is float64: the only patch of transformers' Llama and its relatives that these tests make.

    A float64 Llama has four casts to float32, each of which names the dtype, and so becomes a cast to float64:

    - `LlamaRMSNorm.forward` normalises in float32: `hidden_states.to(torch.float32)`;
    - `LlamaRotaryEmbedding.compute_default_rope_parameters` computes the frequencies in float32, `dtype=torch.float`;
    - `LlamaRotaryEmbedding.forward` computes the angles, cosines and sines in float32: `dtype=torch.float`. Its other
      cast, `position_ids.float()`, is of whole numbers and exact;
    - `eager_attention_forward` has a softmax in float32: `dtype=torch.float32`.

    Scaled frequencies are computed in `modeling_rope_utils`, in float32 as well.

    The loss is not transformers', which casts the logits: `loss_of` takes them as they are.
    """

    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def in_float64(monkeypatch):
    """Apply the patch until the end of a test."""
    for name in (*(f"models.{one}.modeling_{one}" for one in FAMILY), "modeling_rope_utils"):
        monkeypatch.setattr(import_module(f"transformers.{name}"), "torch", InFloat64())


def hf_name(name, n_classes=0):
    """transformers' name of a Llama's parameter or layer."""
    for ours, theirs in OURS_AND_THEIRS:
        name = name.replace(ours, theirs)
    return re.sub(r"^head\b", "score" if n_classes else "lm_head", name)


def our_name(name):
    """The way back."""
    for ours, theirs in OURS_AND_THEIRS:
        name = name.replace(theirs, ours)
    return re.sub(r"^(score|lm_head)\b", "head", name)


def hf_weights(p, config):
    """lora_np's weights (dict of tensors) as transformers has them, differentiably: a gradient finds its way back.

    GPT-2 fuses q, k and v into c_attn, and its Conv1D stores (in, out).
    """
    if not isinstance(config, GPT2Config):
        return {hf_name(name, config.n_classes): weight for name, weight in p.items()}
    outside = {"wte.weight": "tok_emb.weight", "wpe.weight": "pos_emb.weight"}
    outside |= {"ln_f.weight": "ln_f.weight", "ln_f.bias": "ln_f.bias"}
    w = {f"transformer.{theirs}": p[ours] for theirs, ours in outside.items()}
    for i in range(config.n_layers):
        ours, theirs = f"blocks.{i}", f"transformer.h.{i}"
        for leaf in ("weight", "bias"):
            qkv = [p[f"{ours}.attn.{name}.{leaf}"] for name in ("q_proj", "k_proj", "v_proj")]
            w[f"{theirs}.attn.c_attn.{leaf}"] = torch.cat(qkv).T if leaf == "weight" else torch.cat(qkv)
            for a, b in CONV1D.items():
                linear = p[f"{ours}.{a}.{leaf}"]
                w[f"{theirs}.{b}.{leaf}"] = linear.T if leaf == "weight" else linear
            for n in "12":
                w[f"{theirs}.ln_{n}.{leaf}"] = p[f"{ours}.ln{n}.{leaf}"]
    if config.n_classes:
        w["score.weight"] = p["head.weight"]
    return w


def hf_config(config, **more):
    """transformers' configuration for one of ours. A Llama's padding token would get no gradient."""
    fields = dict(
        vocab_size=config.vocab_size, num_labels=config.n_classes or 2, pad_token_id=0 if config.n_classes else None,
        bos_token_id=None, eos_token_id=None, use_cache=False,
    )  # fmt: skip
    if isinstance(config, GPT2Config):
        return transformers.GPT2Config(
            **fields | dict(
                n_positions=config.n_positions, n_embd=config.d_model, n_layer=config.n_layers, n_head=config.n_heads,
                n_inner=config.d_ff, activation_function="gelu_new", layer_norm_epsilon=config.layer_norm_eps,
                resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            ) | more
        )  # fmt: skip
    return transformers.LlamaConfig(
        **fields | dict(
            hidden_size=config.d_model, intermediate_size=config.d_ff, num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads, num_key_value_heads=config.n_kv_heads, head_dim=config.head_size,
            max_position_embeddings=config.n_positions, rms_norm_eps=config.rms_norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            attention_bias=config.attention_bias, mlp_bias=config.mlp_bias, tie_word_embeddings=config.tied,
            attn_implementation="eager",
        ) | more
    )  # fmt: skip


def hf_model(params, config, **more):
    """transformers' model with our weights, in their dtype."""
    name = "GPT2" if isinstance(config, GPT2Config) else "Llama"
    head = "ForSequenceClassification" if config.n_classes else {"GPT2": "LMHeadModel", "Llama": "ForCausalLM"}[name]
    model = getattr(transformers, name + head)(hf_config(config, **more))
    model = model.to(torch.tensor(params["tok_emb.weight"]).dtype).eval()
    tensors = {name: torch.tensor(array) for name, array in params.items()}
    missing, unexpected = model.load_state_dict(hf_weights(tensors, config), strict=False)
    is_tied = getattr(config, "tied", True) and not config.n_classes
    assert missing == ["lm_head.weight"] * is_tied and not unexpected
    return model


class Logits(nn.Module):
    """A model of transformers, adapted by PEFT or not, that is called as `TorchModel` is."""

    def __init__(self, model, n_classes=0):
        super().__init__()
        self.model, self.n_classes = model, n_classes

    def forward(self, ids, lengths):
        """A classifier's padding is masked; a language model's is not, so that all T positions compare."""
        real = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        return self.model(input_ids=ids, **({"attention_mask": real} if self.n_classes else {})).logits
