"""A Llama in PyTorch with lora_np's names: each activation is the output of a module that has lora_np's name for it."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .torch_model import Mask


class Rotated(nn.Module):
    """Each head's numbers as complex ones, j and j + D/2, times exp(i p θ^(−2j/D))."""

    def __init__(self, config):
        super().__init__()
        self.D, self.theta = config.head_size, config.rope_theta

    def forward(self, x, positions):
        return rotated(x, positions, self.D, self.theta)[0]


def rotated(x, positions, D, theta):
    """x (B, T, n·D) turned, and the unit numbers that its points are multiplied by, (B, T, D/2)."""
    speeds = torch.as_tensor(theta, dtype=torch.float64) ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)
    angles = positions[..., None] * speeds
    unit = torch.polar(torch.ones_like(angles), angles)
    points = torch.complex(*x.unflatten(-1, (-1, 2, D // 2)).unbind(-2)) * unit[..., None, :]
    return torch.stack([points.real, points.imag], dim=-2).flatten(-3), unit


def grouped_attention(q, k, v, D):
    """(scores, the function of probs that gives the context): keys and values are repeated for their queries."""
    q, k, v = (x.unflatten(-1, (-1, D)).transpose(1, 2) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    Tq, Tk = q.shape[2], k.shape[2]
    future = torch.arange(Tk) > torch.arange(Tk - Tq, Tk)[:, None]
    scores = (q @ k.transpose(-1, -2) / math.sqrt(D)).masked_fill(future, -torch.inf)
    return scores, lambda probs: (probs @ v).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        C, self.D, bias = config.d_model, config.head_size, config.attention_bias
        Q, K = config.n_heads * self.D, config.n_kv_heads * self.D
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(C, width, bias) for width in (Q, K, K))
        self.o_proj = nn.Linear(Q, C, bias)
        self.q_rotated, self.k_rotated = Rotated(config), Rotated(config)
        self.scores, self.probs, self.context = nn.Identity(), nn.Softmax(dim=-1), nn.Identity()
        self.dropout, self.residual = Mask(), nn.Identity()

    def forward(self, h):
        positions = torch.arange(h.shape[1]).expand(h.shape[:2])
        q, k = (r(p(h), positions) for p, r in ((self.q_proj, self.q_rotated), (self.k_proj, self.k_rotated)))
        scores, context = grouped_attention(q, k, self.v_proj(h), self.D)
        return self.dropout(self.o_proj(self.context(context(self.probs(self.scores(scores))))))


class SwiGLU(nn.Module):
    def forward(self, gate, up):
        return F.silu(gate) * up


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        C, width, bias = config.d_model, config.d_ff, config.mlp_bias
        self.gate_proj, self.up_proj = nn.Linear(C, width, bias), nn.Linear(C, width, bias)
        self.swiglu, self.down_proj = SwiGLU(), nn.Linear(width, C, bias)
        self.dropout, self.residual = Mask(), nn.Identity()

    def forward(self, h):
        return self.dropout(self.down_proj(self.swiglu(self.gate_proj(h), self.up_proj(h))))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.norm1, self.norm2 = (nn.RMSNorm(config.d_model, config.rms_norm_eps) for _ in range(2))
        self.attn, self.mlp = Attention(config), MLP(config)

    def forward(self, x):
        x = self.attn.residual(x + self.attn(self.norm1(x)))
        return self.mlp.residual(x + self.mlp(self.norm2(x)))


class TorchLlama(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.tok_emb = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm_f = nn.RMSNorm(config.d_model, config.rms_norm_eps)
        self.is_classifier = config.n_classes > 0
        if self.is_classifier or not config.tied:
            self.head = nn.Linear(config.d_model, config.n_classes or config.vocab_size, bias=False)
        self.pooled, self.logits = nn.Identity(), nn.Identity()

    def forward(self, ids, lengths):
        x = self.tok_emb(ids)
        for block in self.blocks:
            x = block(x)
        x = self.norm_f(x)
        if self.is_classifier:
            x = self.pooled(torch.stack([row[length - 1] for row, length in zip(x, lengths)]))
        return self.logits(F.linear(x, (self.head if hasattr(self, "head") else self.tok_emb).weight))
