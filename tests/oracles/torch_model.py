"""The oracles' side: GPT-2 and Llama in PyTorch, and random cases for both.

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
from lora_np.model import GPT2Config

from .. import tiny

torch.set_num_threads(1)

IGNORED = -100


class Mask(nn.Module):
    """Dropout whose mask is given; the identity while there is none."""

    mask = None

    def forward(self, x):
        return x if self.mask is None else x * self.mask


def attention(q, k, v, D, positions=None):
    """(scores, the function of probs that gives the context): keys and values are repeated for their queries.

    The queries' positions (B, Tq) are those of the last keys, unless they are given.
    """
    q, k, v = (x.unflatten(-1, (-1, D)).transpose(1, 2) for x in (q, k, v))  # (B, H or K, T, D)
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    Tq, Tk = q.shape[2], k.shape[2]
    positions = torch.arange(Tk - Tq, Tk)[None] if positions is None else positions
    future = torch.arange(Tk) > positions[:, None, :, None]  # (B, 1, Tq, Tk)
    scores = (torch.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(D)).masked_fill(future, -torch.inf)
    return scores, lambda probs: torch.einsum("bhqk,bhkd->bqhd", probs, v).flatten(2)


def rotated(x, positions, D, theta, divisors=()):
    """x (B, T, n·D) turned, and the unit numbers that its points are multiplied by, (B, T, D/2).

    Each head's numbers are complex ones, j and j + D/2, times exp(i p θ^(−2j/D)).
    """
    speeds = torch.as_tensor(theta, dtype=torch.float64) ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)
    if divisors:
        speeds = speeds / torch.tensor(divisors, dtype=torch.float64)
    angles = positions[..., None] * speeds
    unit = torch.polar(torch.ones_like(angles), angles)
    points = torch.complex(*x.unflatten(-1, (-1, 2, D // 2)).unbind(-2)) * unit[..., None, :]
    return torch.stack([points.real, points.imag], dim=-2).flatten(-3), unit


class Rotated(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.D, self.theta, self.divisors = config.head_size, config.rope_theta, config.rope_divisors

    def forward(self, x):
        places = torch.arange(x.shape[1]).expand(x.shape[:2])
        return rotated(x, places, self.D, self.theta, self.divisors)[0]


class HeadNorm(nn.RMSNorm):
    """Over the entries of each head."""

    def forward(self, x):
        return super().forward(x.unflatten(-1, (-1, self.normalized_shape[0]))).flatten(-2)


class Attention(nn.Module):
    def __init__(self, config, i):
        super().__init__()
        C, self.D, K, bias = config.d_model, config.d_model // config.n_heads, config.n_heads, True
        if not isinstance(config, GPT2Config):
            self.D, K, bias = config.head_size, config.n_kv_heads, config.attention_bias
            if config.head_norm:
                self.q_norm, self.k_norm = (HeadNorm(self.D, config.rms_norm_eps) for _ in "qk")
            if i not in config.unrotated:
                self.q_rotated, self.k_rotated = Rotated(config), Rotated(config)
        heads, qkv_bias = (config.n_heads, K, K), bias or config.qkv_bias
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(C, n * self.D, qkv_bias) for n in heads)
        self.o_proj = nn.Linear(config.n_heads * self.D, C, bias)
        self.scores, self.probs, self.context = nn.Identity(), nn.Softmax(dim=-1), nn.Identity()
        self.dropout, self.residual = Mask(), nn.Identity()

    def forward(self, h):
        q, k, v = self.q_proj(h), self.k_proj(h), self.v_proj(h)
        if hasattr(self, "q_norm"):
            q, k = self.q_norm(q), self.k_norm(k)
        if hasattr(self, "q_rotated"):
            q, k = self.q_rotated(q), self.k_rotated(k)
        scores, context = attention(q, k, v, self.D)
        return self.dropout(self.o_proj(self.context(context(self.probs(self.scores(scores))))))


class SwiGLU(nn.Module):
    def forward(self, gate, up):
        return F.silu(gate) * up


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        C, width, bias = config.d_model, config.d_ff, getattr(config, "mlp_bias", True)
        self.up_proj, self.down_proj = nn.Linear(C, width, bias), nn.Linear(width, C, bias)
        if isinstance(config, GPT2Config):
            self.gelu = nn.GELU(approximate="tanh")
        else:
            self.gate_proj, self.swiglu = nn.Linear(C, width, bias), SwiGLU()
        self.dropout, self.residual = Mask(), nn.Identity()

    def forward(self, h):
        up = self.up_proj(h)
        inner = self.gelu(up) if hasattr(self, "gelu") else self.swiglu(self.gate_proj(h), up)
        return self.dropout(self.down_proj(inner))


def norm(config):
    if isinstance(config, GPT2Config):
        return nn.LayerNorm(config.d_model, config.layer_norm_eps)
    return nn.RMSNorm(config.d_model, config.rms_norm_eps)


class Block(nn.Module):
    def __init__(self, config, i):
        super().__init__()
        self.attn, self.mlp = Attention(config, i), MLP(config)
        self.norms = ("ln1", "ln2") if isinstance(config, GPT2Config) else ("norm1", "norm2")
        for name in self.norms:
            setattr(self, name, norm(config))

    def forward(self, x):
        first, second = (getattr(self, name) for name in self.norms)
        x = self.attn.residual(x + self.attn(first(x)))
        return self.mlp.residual(x + self.mlp(second(x)))


class TorchModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        C, self.n_classes = config.d_model, config.n_classes
        self.tok_emb = nn.Embedding(config.vocab_size, C)
        if isinstance(config, GPT2Config):
            self.pos_emb, self.embed, self.ln_f = nn.Embedding(config.n_positions, C), Mask(), norm(config)
        else:
            self.norm_f = norm(config)
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.n_layers))
        if self.n_classes or not getattr(config, "tied", True):
            self.head = nn.Linear(C, self.n_classes or config.vocab_size, bias=False)
        self.pooled, self.logits = nn.Identity(), nn.Identity()

    def forward(self, ids, lengths):
        x = self.tok_emb(ids)
        if hasattr(self, "pos_emb"):
            x = self.embed(x + self.pos_emb(torch.arange(ids.shape[1])))
        for block in self.blocks:
            x = block(x)
        x = self.ln_f(x) if hasattr(self, "ln_f") else self.norm_f(x)
        if self.n_classes:
            x = self.pooled(torch.stack([row[length - 1] for row, length in zip(x, lengths)]))
        return self.logits(self.head(x) if hasattr(self, "head") else F.linear(x, self.tok_emb.weight))


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
        if not list(module.children()) and not name.endswith(".dropout") and name != "head":  # the logits once more
            module.register_forward_hook(hook_for(name))
    return seen


def loss_of(logits, targets):
    """PyTorch's mean cross-entropy over the targets that are not ignored."""
    targets = torch.as_tensor(targets)
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED)


# ---------------------------------------------------------------- cases

# Sizes that differ from one another; a Llama's head size is 6 except once, because at 4 pairs of rows are easily
# mistaken.
LLAMAS = {
    "H/K = 3, tied": dict(n_heads=6, n_kv_heads=2, rope_theta=500.0),
    "H/K = 2, untied": dict(n_heads=4, n_kv_heads=2, tied=False, rope_theta=100000.0, rms_norm_eps=1e-3),
    "H/K = 1, square, biases": dict(
        n_heads=2, n_kv_heads=2, attention_bias=True, mlp_bias=True, rope_theta=2.5, rms_norm_eps=0.3
    ),
    "one key, untied, attention's biases": dict(n_heads=3, n_kv_heads=1, tied=False, attention_bias=True),
    "head size 10, the MLP's biases": dict(n_heads=3, n_kv_heads=3, head_size=10, mlp_bias=True, rms_norm_eps=1e-6),
}
MODELS = ("GPT-2", *LLAMAS)


def config_of(name, n_classes=0, dropout=0.0):
    """The configuration of one of `MODELS`; GPT-2 has two heads of 6 columns."""
    changes = {"vocab_size": 17, "n_classes": n_classes, "dropout": dropout}
    if name == "GPT-2":
        return tiny.tiny_config(n_heads=2, **changes)
    return tiny.tiny_llama(n_positions=9, **LLAMAS[name], **changes)


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


def model_case(name, n_classes, seed, lengths=(5, 2, 4, 1), dropout=0.0):
    """(rng, config, params, batch); of a language model's targets some more are ignored, and all of the second row."""
    rng, config = np.random.default_rng(seed), config_of(name, n_classes, dropout)
    params, batch = tiny.random_params(config, seed=rng), random_batch(config, rng, lengths)
    if not n_classes and max(lengths) > 1:
        batch.targets[0, 1] = batch.targets[1] = IGNORED
    return rng, config, params, batch
