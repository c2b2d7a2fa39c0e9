"""Causal multi-head attention (Vaswani et al. 2017, section 3.2) for projected q, k and v.

The three projections before attention and the one after it are separate linear layers, because LoRA adapts them.

H query heads may share K key and value heads (grouped-query attention, Ainslie et al. 2023): query head h uses key head
h // (H/K). Here, the queries of a group are stacked as additional rows of one matrix. The matrix products are then
those of ordinary multi-head attention, and the products for dk and dv also sum over the group.
"""

import math
from typing import NamedTuple

import numpy as np

from .softmax import SoftmaxCache, softmax, softmax_backward


class AttentionCache(NamedTuple):
    """q, k and v are views of the inputs; only probs is a new array."""

    q: np.ndarray | None  # (B, H, Tq, D), for dk
    k: np.ndarray | None  # (B, K, Tk, D), for dq
    v: np.ndarray | None  # (B, K, Tk, D), for dq and dk
    probs: np.ndarray | None  # (B, H, Tq, Tk), for all three
    n_kv_heads: int  # K
    wanted: tuple[str, ...]


class AttentionGrads(NamedTuple):
    """The gradients; dprobs and dscores are included for readers who follow the chain rule step by step."""

    dq: np.ndarray | None  # (B, Tq, H·D)
    dk: np.ndarray | None  # (B, Tk, K·D)
    dv: np.ndarray | None  # (B, Tk, K·D)
    dprobs: np.ndarray | None  # (B, H, Tq, Tk)
    dscores: np.ndarray | None  # (B, H, Tq, Tk)


def split_heads(x, n_heads):
    """(B, T, C) -> (B, H, T, D), a view: head h consists of columns hD to (h+1)D − 1."""
    B, T, C = x.shape
    return x.reshape(B, T, n_heads, C // n_heads).transpose(0, 2, 1, 3)


def merge_heads(x):
    """(B, H, T, D) -> (B, T, C), the inverse of split_heads."""
    B, H, T, D = x.shape
    return x.transpose(0, 2, 1, 3).reshape(B, T, H * D)


def stack_groups(x, n_kv_heads):
    """(B, H, T, N) -> (B, K, H/K · T, N): stack the query heads that share a key head."""
    return x.reshape(x.shape[0], n_kv_heads, -1, x.shape[-1])


def unstack_groups(x, n_heads):
    """(B, K, H/K · T, N) -> (B, H, T, N), the inverse of stack_groups."""
    return x.reshape(x.shape[0], n_heads, -1, x.shape[-1])


def causal_mask(positions, n_keys, dtype):
    """The array (…, Tq, Tk) to add to the scores: 0 at keys up to the query's position, −inf at later keys.

    Parameters
    ----------
    positions : int array (…, Tq), the queries' positions among the keys
    n_keys : int, Tk
    """
    allowed = np.arange(n_keys) <= positions[..., None]  # (…, Tq, Tk)
    return np.where(allowed, 0.0, -np.inf).astype(dtype)


def attention_scores(q, k, n_heads, positions=None):
    """The masked and scaled scores q kᵀ / √D, before the softmax.

    Parameters
    ----------
    q : array (B, Tq, H·D); k : array (B, Tk, K·D)
    n_heads : int, H
    positions : see `attention_forward`

    Returns
    -------
    scores : array (B, H, Tq, Tk); −inf where the key comes after the query
    """
    q = split_heads(q, n_heads)
    k = split_heads(k, k.shape[-1] // q.shape[-1])
    scale = 1.0 / math.sqrt(q.shape[-1])
    scores = stack_groups(q * scale, k.shape[1]) @ k.transpose(0, 1, 3, 2)  # (B, K, H/K · Tq, Tk)
    scores = unstack_groups(scores, n_heads)  # (B, H, Tq, Tk)
    n_queries, n_keys = scores.shape[2:]
    if positions is not None:
        scores += causal_mask(positions[:, None], n_keys, scores.dtype)  # (B, 1, Tq, Tk), for all heads
    elif n_queries > 1:  # a single query is the last one and attends to every key
        scores += causal_mask(np.arange(n_keys - n_queries, n_keys), n_keys, scores.dtype)  # (Tq, Tk)
    return scores


def attend(q, k, v, n_heads, positions=None):
    """`attention_forward` without a cache: the context (B, Tq, H·D) and the probabilities (B, H, Tq, Tk)."""
    probs = softmax(attention_scores(q, k, n_heads, positions))  # (B, H, Tq, Tk)
    v = split_heads(v, n_heads * v.shape[-1] // q.shape[-1])  # (B, K, Tk, D)
    return merge_heads(unstack_groups(stack_groups(probs, v.shape[1]) @ v, n_heads)), probs


def attention_forward(q, k, v, n_heads, wanted=("q", "k", "v"), positions=None):
    """Average the values up to each query's position, weighted by softmax(q kᵀ / √D).

    Parameters
    ----------
    q : array (B, Tq, H·D); k, v : array (B, Tk, K·D) with Tk ≥ Tq (equal in training)
    n_heads : int, H; a multiple of K
    wanted : names of the operands whose gradients the backward pass will compute
    positions : int array (B, Tq), the queries' positions among the keys; None means the last Tq positions

    Returns
    -------
    context : array (B, Tq, H·D), the heads side by side
    cache : AttentionCache
    """
    context, probs = attend(q, k, v, n_heads, positions)  # (B, Tq, H·D)
    n_kv_heads = n_heads * k.shape[-1] // q.shape[-1]
    scores_wanted = "q" in wanted or "k" in wanted
    cache = AttentionCache(
        q=split_heads(q, n_heads) if "k" in wanted else None,
        k=split_heads(k, n_kv_heads) if "q" in wanted else None,
        v=split_heads(v, n_kv_heads) if scores_wanted else None,
        probs=probs if wanted else None,
        n_kv_heads=n_kv_heads,
        wanted=tuple(wanted),
    )
    return context, cache


def attention_backward(dcontext, cache):
    """Gradients of causal attention.

    Forward, per head: S = q kᵀ / √D + mask, P = softmax(S), O = P v. Backward, line by line:

        dv = Pᵀ dO        dP = dO vᵀ
        dS = P ⊙ (dP − Σ_j dP ⊙ P)        (softmax_backward; dS = 0 where P = 0, so the mask needs no extra step)
        dq = dS k / √D    dk = dSᵀ q / √D

    If several query heads share a key head, their S, P, O and q are stacked as rows of one matrix. The products for dv
    and dk therefore also sum over the query heads that share k and v.

    Parameters
    ----------
    dcontext : array (B, Tq, H·D)
    cache : AttentionCache

    Returns
    -------
    AttentionGrads, with None for each operand that was not wanted
    """
    dq = dk = dv = dprobs = dscores = None
    if not cache.wanted:
        return AttentionGrads(dq, dk, dv, dprobs, dscores)
    probs, n_heads, n_kv_heads = cache.probs, cache.probs.shape[1], cache.n_kv_heads
    d_out = split_heads(dcontext, n_heads)  # (B, H, Tq, D)
    scale = 1.0 / math.sqrt(d_out.shape[-1])
    d_out = stack_groups(d_out, n_kv_heads)  # (B, K, H/K · Tq, D)
    # O = P v
    if "v" in cache.wanted:
        dv = merge_heads(stack_groups(probs, n_kv_heads).transpose(0, 1, 3, 2) @ d_out)  # (B, Tk, K·D)
    if "q" in cache.wanted or "k" in cache.wanted:
        dprobs = unstack_groups(d_out @ cache.v.transpose(0, 1, 3, 2), n_heads)  # (B, H, Tq, Tk)
        # P = softmax(S)
        dscores = softmax_backward(dprobs, SoftmaxCache(probs)).dx  # (B, H, Tq, Tk)
        stacked = stack_groups(dscores, n_kv_heads)  # (B, K, H/K · Tq, Tk)
    # S = q kᵀ / √D + mask
    if "q" in cache.wanted:
        dq = merge_heads(unstack_groups(stacked @ cache.k, n_heads)) * scale  # (B, Tq, H·D)
    if "k" in cache.wanted:
        dk = merge_heads(stacked.transpose(0, 1, 3, 2) @ stack_groups(cache.q, n_kv_heads)) * scale  # (B, Tk, K·D)
    return AttentionGrads(dq, dk, dv, dprobs, dscores)
