"""The layers' names in files: the one table that tells how Hugging Face, which PEFT follows, and GGUF name ours."""

import re

FILES = ("hf", "gguf")
# Hugging Face's name of a layer (of a model with a head), GGUF's, and ours; {} is the number of a block. GPT-2 has q, k
# and v as one layer.
GPT2 = """
transformer.wte               token_embd          tok_emb
transformer.wpe               position_embd       pos_emb
transformer.h.{}.ln_1         blk.{}.attn_norm    blocks.{}.ln1
transformer.h.{}.attn.c_attn  blk.{}.attn_qkv     blocks.{}.attn.q_proj blocks.{}.attn.k_proj blocks.{}.attn.v_proj
transformer.h.{}.attn.c_proj  blk.{}.attn_output  blocks.{}.attn.o_proj
transformer.h.{}.ln_2         blk.{}.ffn_norm     blocks.{}.ln2
transformer.h.{}.mlp.c_fc     blk.{}.ffn_up       blocks.{}.mlp.up_proj
transformer.h.{}.mlp.c_proj   blk.{}.ffn_down     blocks.{}.mlp.down_proj
transformer.ln_f              output_norm         ln_f
lm_head                       output              head
"""
LLAMA = """
model.embed_tokens                        token_embd          tok_emb
model.layers.{}.input_layernorm           blk.{}.attn_norm    blocks.{}.norm1
model.layers.{}.self_attn.q_proj          blk.{}.attn_q       blocks.{}.attn.q_proj
model.layers.{}.self_attn.k_proj          blk.{}.attn_k       blocks.{}.attn.k_proj
model.layers.{}.self_attn.v_proj          blk.{}.attn_v       blocks.{}.attn.v_proj
model.layers.{}.self_attn.o_proj          blk.{}.attn_output  blocks.{}.attn.o_proj
model.layers.{}.post_attention_layernorm  blk.{}.ffn_norm     blocks.{}.norm2
model.layers.{}.mlp.gate_proj             blk.{}.ffn_gate     blocks.{}.mlp.gate_proj
model.layers.{}.mlp.up_proj               blk.{}.ffn_up       blocks.{}.mlp.up_proj
model.layers.{}.mlp.down_proj             blk.{}.ffn_down     blocks.{}.mlp.down_proj
model.norm                                output_norm         norm_f
lm_head                                   output              head
"""
PREFIXES = ("transformer.", "model.")  # which a model without a head does not have


def is_llama(names):
    """Whether parameters, by our names, are a Llama's and not a GPT-2's."""
    return "norm_f.weight" in names


def layer_names(names, file):
    """The names of a model's layers in a kind of file.

    Parameters
    ----------
    names : the names of the model's parameters, such as its weights or `parameter_shapes(config)`
    file : "hf" or "gguf"

    Returns
    -------
    dict, the file's name -> our layers in it, in execution order: "blk.0.attn_qkv" -> ["blocks.0.attn.q_proj", …]
    """
    rows = [line.split() for line in (LLAMA if is_llama(names) else GPT2).strip().splitlines()]
    in_block = [row for row in rows if "{}" in row[0]]
    first = rows.index(in_block[0])
    n_blocks = sum(name.endswith(".attn.q_proj.weight") for name in names)
    blocks = [[name.replace("{}", str(i)) for name in row] for i in range(n_blocks) for row in in_block]
    rows = rows[:first] + blocks + rows[first + len(in_block) :]
    return {row[FILES.index(file)]: row[2:] for row in rows if f"{row[2]}.weight" in names}


def linear_names(names, file):
    """`layer_names` of the linear layers in the blocks, which an adapter can have as targets."""
    return {theirs: ours for theirs, ours in layer_names(names, file).items() if ours[0].endswith("_proj")}


def short_names(layers):
    """Layer -> the end of its name that no other layer of a block has: "q_proj", but in a GPT-2 "attn.c_proj"."""
    ends = {name: re.split(r"\.\d+\.", name, maxsplit=1)[-1] for name in layers}
    last = {end: end.rpartition(".")[2] for end in ends.values()}
    is_clear = len(set(last.values())) == len(last)
    return {name: last[end] if is_clear else end for name, end in ends.items()}
