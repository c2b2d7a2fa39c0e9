"""The oracles' side: a transformer in PyTorch, GPT-2 from transformers, and random cases for both.

`TorchModel` has lora_np's parameter names, so that a state dict goes across as it is and PEFT finds
its layers. Every activation is the output of a module that has lora_np's name for it, so that one
hook on each module records them all. Gradients are autograd's throughout.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lora_np.data import Batch

from .. import tiny

torch.set_num_threads(1)

IGNORED = -100


class Mask(nn.Module):
    """Dropout whose mask is given; the identity while there is none."""

    mask = None

    def forward(self, x):
        return x if self.mask is None else x * self.mask


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        C = config.d_model
        self.n_heads = config.n_heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(C, C) for _ in range(4))
        self.scores, self.probs, self.context = nn.Identity(), nn.Softmax(dim=-1), nn.Identity()
        self.dropout, self.residual = Mask(), nn.Identity()

    def forward(self, h):
        q, k, v = (
            proj(h).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (B, H, T, D)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        future = torch.ones(h.shape[1], h.shape[1], dtype=torch.bool).triu(1)
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(q.shape[-1])
        probs = self.probs(self.scores(scores.masked_fill(future, -torch.inf)))
        context = torch.einsum("bhqk,bhkd->bqhd", probs, v).flatten(2)
        return self.dropout(self.o_proj(self.context(context)))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.up_proj = nn.Linear(config.d_model, config.d_ff)
        self.gelu = nn.GELU(approximate="tanh")
        self.down_proj = nn.Linear(config.d_ff, config.d_model)
        self.dropout, self.residual = Mask(), nn.Identity()

    def forward(self, h):
        return self.dropout(self.down_proj(self.gelu(self.up_proj(h))))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln1 = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.attn = Attention(config)
        self.ln2 = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x):
        x = self.attn.residual(x + self.attn(self.ln1(x)))
        return self.mlp.residual(x + self.mlp(self.ln2(x)))


class TorchModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.tok_emb = nn.Embedding(config.vocab_size, config.d_model)
        self.pos_emb = nn.Embedding(config.n_positions, config.d_model)
        self.embed = Mask()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.ln_f = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        if config.n_classes:
            self.pooled, self.head = nn.Identity(), nn.Linear(config.d_model, config.n_classes, bias=False)
        self.logits = nn.Identity()

    def forward(self, ids, lengths):
        x = self.embed(self.tok_emb(ids) + self.pos_emb(torch.arange(ids.shape[1])))
        for block in self.blocks:
            x = block(x)
        h = self.ln_f(x)
        if not hasattr(self, "head"):
            return self.logits(F.linear(h, self.tok_emb.weight))
        last = torch.stack([row[length - 1] for row, length in zip(h, lengths)])
        return self.logits(self.head(self.pooled(last)))


def torch_model(params, config):
    """A float64 TorchModel with lora_np's weights."""
    model = TorchModel(config).double()
    model.load_state_dict({name: torch.tensor(array) for name, array in params.items()})
    return model


def set_masks(model, masks):
    """Give lora_np's dropout masks to a TorchModel, adapted by PEFT or not."""
    for name, mask in masks.items():
        module = model.get_submodule(name.removesuffix(".adapter"))
        if name.endswith(".adapter"):  # PEFT draws its own masks here: put ours in that place
            drops = module.vera_dropout if hasattr(module, "vera_dropout") else module.lora_dropout
            drops["default"] = holder = Mask()
        else:
            holder = module if isinstance(module, Mask) else module.dropout
        holder.mask = torch.tensor(mask)


def record_activations(model):
    """A dict that the model's next forward pass fills: activation -> tensor that keeps its gradient."""
    seen = {}

    def hook_for(name):
        def hook(module, inputs, output):
            output.retain_grad()
            seen[name] = output

        return hook

    for name, module in model.named_modules():
        if not list(module.children()) and not name.endswith(".dropout"):
            module.register_forward_hook(hook_for(name))
    return seen


def loss_of(logits, targets):
    """PyTorch's mean cross-entropy over the targets that are not ignored."""
    targets = torch.as_tensor(targets)
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED)


# ---------------------------------------------------------------- GPT-2


CONV1D = {"attn.o_proj": "attn.c_proj", "mlp.up_proj": "mlp.c_fc", "mlp.down_proj": "mlp.c_proj"}


def gpt2_weights(p, config):
    """lora_np's weights (dict of tensors) in GPT-2's layout, differentiably: a gradient finds its way back.

    GPT-2 fuses q, k and v into c_attn, and its Conv1D stores (in, out).
    """
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


# ---------------------------------------------------------------- cases


def tiny_config(n_classes=0, dropout=0.0):
    """Two heads of 6 columns, so that no axis has the length of another."""
    return tiny.tiny_config(vocab_size=17, n_heads=2, n_classes=n_classes, dropout=dropout)


def random_params(config, rng):
    return tiny.random_params(config, seed=rng)


def random_batch(config, rng, lengths=(5, 2, 4)):
    """A right-padded batch, the padding being id 0; repeated ids, and ignored targets in a language model."""
    lengths = np.array(lengths)
    B, T = len(lengths), max(lengths)
    real = np.arange(T) < lengths[:, None]  # (B, T)
    ids = np.where(real, rng.integers(1, config.vocab_size, (B, T)), 0)
    if config.n_classes:
        return Batch(ids, rng.integers(0, config.n_classes, B), lengths, np.arange(B))
    following = np.concatenate([ids[:, 1:], np.zeros((B, 1), dtype=ids.dtype)], axis=1)
    has_next = np.arange(T) < lengths[:, None] - 1
    return Batch(ids, np.where(has_next, following, IGNORED), lengths, np.arange(B))
