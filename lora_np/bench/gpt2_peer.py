"""Generation by transformers: its GPT-2 with lora_np's weights, its `generate` with a key-value cache."""

from contextlib import contextmanager

import numpy as np

from .case import Side

# GPT-2's names for the layers of a block; its Conv1D keeps a weight as (in, out).
LINEAR = {
    "attn.c_attn": ("attn.q_proj", "attn.k_proj", "attn.v_proj"),
    "attn.c_proj": ("attn.o_proj",),
    "mlp.c_fc": ("mlp.up_proj",),
    "mlp.c_proj": ("mlp.down_proj",),
}
NORMS = {"ln_1": "ln1", "ln_2": "ln2"}


@contextmanager
def make_side(case, threads):
    """The case in transformers on so many threads."""
    import torch

    torch.set_num_threads(threads)
    model = gpt2(case.params, case.config)
    prompt = torch.tensor(case.batch.ids)
    settings = {
        "attention_mask": torch.ones_like(prompt),
        "min_new_tokens": case.n_new,
        "max_new_tokens": case.n_new,
        "do_sample": False,
        "use_cache": True,
        "pad_token_id": 0,
        "eos_token_id": None,  # no token ends a text: all sides make as many
    }

    def generate():
        with torch.inference_mode():
            return model.generate(prompt, **settings).numpy()

    def step():
        generate()
        return 0.0

    yield Side(lambda: (0.0, {"tokens": generate()}), step)


def gpt2(params, config):
    """transformers' GPT-2 language model with lora_np's weights, in evaluation."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.n_positions,
            n_embd=config.d_model,
            n_layer=config.n_layers,
            n_head=config.n_heads,
            n_inner=config.d_ff,
            activation_function="gelu_new",
            layer_norm_epsilon=config.layer_norm_eps,
            bos_token_id=None,
            eos_token_id=None,
        )
    ).eval()
    state = {name: torch.tensor(array) for name, array in gpt2_weights(params, config).items()}
    result = model.load_state_dict(state, strict=False)
    missing = [name for name in result.missing_keys if name != "lm_head.weight"]  # tied to wte
    if missing or result.unexpected_keys:
        raise ValueError(f"GPT-2: missing {missing}, unexpected {result.unexpected_keys}; expected none")
    return model


def gpt2_weights(params, config):
    """lora_np's weights under GPT-2's names and in its layout."""
    out = {"transformer.wte.weight": params["tok_emb.weight"], "transformer.wpe.weight": params["pos_emb.weight"]}
    for leaf in ("weight", "bias"):
        out[f"transformer.ln_f.{leaf}"] = params[f"ln_f.{leaf}"]
        for i in range(config.n_layers):
            for theirs, ours in NORMS.items():
                out[f"transformer.h.{i}.{theirs}.{leaf}"] = params[f"blocks.{i}.{ours}.{leaf}"]
            for theirs, ours in LINEAR.items():
                joined = np.concatenate([params[f"blocks.{i}.{name}.{leaf}"] for name in ours])  # (out[, in])
                out[f"transformer.h.{i}.{theirs}.{leaf}"] = joined.T.copy()
    return out
