"""The transformer's forward and backward pass.

    x = tok_emb[ids] + pos_emb
    for each block:  x = x + attention(ln1(x));  x = x + mlp(ln2(x))
    logits = head(ln_f(x))

Every activation has a name, `blocks.0.attn.probs` for one. Pass a dict as `record` and the forward
pass fills it in execution order; pass another to `backward` and it is filled with the gradients of the
loss with respect to those activations, under the same names, in reverse order.
"""

from typing import NamedTuple

import numpy as np

from ..ops import (
    attention_backward,
    attention_forward,
    attention_scores,
    dropout_backward,
    dropout_forward,
    embedding_backward,
    embedding_forward,
    gelu_backward,
    gelu_forward,
    layer_norm_backward,
    layer_norm_forward,
    linear_backward,
    linear_forward,
    softmax_forward,
)
from .call import Call, begin
from .projection import project_backward, project_forward, rows_forward


class ForwardCache(NamedTuple):
    """What `backward` needs: the call, and each operation's cache by its name."""

    call: Call
    ops: dict


def note(record, name, array):
    """Write an activation or its gradient into the reader's dict, where there is one."""
    if record is not None and array is not None:
        record[name] = array


def add(*terms):
    """The sum of the gradients that reach one point by several ways; None where no way is trained."""
    terms = [term for term in terms if term is not None]
    return sum(terms[1:], start=terms[0]) if terms else None


def forward(params, ids, config, *, lengths=None, adapter=None, wanted=(), masks=None, record=None):
    """Run the model.

    Parameters
    ----------
    params : dict of the base weights (`initial_params`, `load_model`)
    ids : int array (B, T), right-padded; T at most config.n_positions
    config : ModelConfig
    lengths : int array (B,), the real tokens of each row; a classifier reads the last of them.
        None: no row is padded.
    adapter : Adapter or None; or, in evaluation, a list with one of them for each row
    wanted : names of the parameters, the base's or the adapter's, whose gradients `backward` will be
        asked for. Nothing is kept for any other; with () nothing is kept at all.
    masks : dict of dropout masks from `draw_masks`, or None in evaluation
    record : dict to be filled with every activation, by name, in execution order; or None

    Returns
    -------
    logits : array (B, T, V) of a language model, (B, n_classes) of a classifier
    cache : ForwardCache

    Raises
    ------
    ValueError
        For ids outside the vocabulary, a sequence longer than the position table, or unknown names.
    """
    call = begin(params, ids, config, lengths, adapter, wanted, masks)
    ops = {}
    x = embed_forward(ids, call, ops, record)  # (B, T, C)
    for i in range(config.n_layers):
        x = block_forward(x, i, call, ops, record)  # (B, T, C); (B, 1, C) after a classifier's last
    h = norm_forward(x, "ln_f", call, ops, record)  # like x
    logits = head_forward(h, call, ops, record)
    return logits, ForwardCache(call, ops)


def backward(dlogits, cache, record=None):
    """Gradients of the wanted parameters.

    Parameters
    ----------
    dlogits : array, the loss's gradient with respect to the logits, of their shape
    cache : ForwardCache, from `forward`
    record : dict to be filled with the gradient of every activation, by the names that `forward`
        gave them, in reverse order; or None. Gradients that no wanted parameter needs are absent.

    Returns
    -------
    dict, parameter name -> gradient of its shape: exactly the names in `wanted`
    """
    grads = {}
    note(record, "logits", dlogits)
    dh = head_backward(dlogits, cache, grads, record)
    dx = norm_backward(dh, "ln_f", cache, grads, record)
    for i in reversed(range(cache.call.config.n_layers)):
        dx = block_backward(dx, i, cache, grads, record)
        # dx is None once nothing below is trained, and then there is nothing left to do.
    embed_backward(dx, cache, grads, record)
    return grads


# ---------------------------------------------------------------- embeddings


def embed_forward(ids, call, ops, record):
    params = call.params
    tok, ops["tok_emb"] = embedding_forward(ids, params["tok_emb.weight"], call.operands_wanted("tok_emb"))  # (B, T, C)
    positions = np.arange(ids.shape[1])  # (T,)
    pos, ops["pos_emb"] = embedding_forward(
        positions, params["pos_emb.weight"], call.operands_wanted("pos_emb")
    )  # (T, C)
    note(record, "tok_emb", tok)
    note(record, "pos_emb", pos)
    x, ops["embed"] = dropout_forward(tok + pos, call.masks.get("embed"))  # (B, T, C)
    note(record, "embed", x)
    return x


def embed_backward(dx, cache, grads, record):
    if dx is None:
        return
    note(record, "embed", dx)
    # x = (tok + pos) ⊙ mask
    dtok = dropout_backward(dx, cache.ops["embed"]).dx  # (B, T, C)
    dpos = dtok.sum(axis=0)  # (T, C): every row of the batch adds the same positions
    note(record, "pos_emb", dpos)
    note(record, "tok_emb", dtok)
    # A tied language-model head has left its own term of the table's gradient here already.
    through_ids = embedding_backward(dtok, cache.ops["tok_emb"], into=grads.get("tok_emb.weight")).dweight
    through_positions = embedding_backward(dpos, cache.ops["pos_emb"]).dweight
    found = {"tok_emb.weight": through_ids, "pos_emb.weight": through_positions}
    grads |= {name: grad for name, grad in found.items() if grad is not None}


# ---------------------------------------------------------------- one block


def block_forward(x, i, call, ops, record):
    """x + attention(ln1(x)), then x + mlp(ln2(x)): (B, T, C) to (B, Tq, C).

    Tq is T but for a classifier's last block: after it one position of each row is read, so the query and all
    that follows are computed there alone, and Tq is 1; see `positions_read`.
    """
    attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"

    h = norm_forward(x, f"blocks.{i}.ln1", call, ops, record)
    ops[f"{attn}.all_positions"] = h.shape
    q = linear(at_read(h, i, call), f"{attn}.q_proj", call, ops, record)
    k, v = (linear(h, f"{attn}.{name}", call, ops, record) for name in ("k_proj", "v_proj"))
    asked = [name for name in "qkv" if call.operands_wanted(f"{attn}.{name}_proj")]
    positions = call.read[:, None] if call.reads_one(i) else None
    context, ops[attn] = attention_forward(q, k, v, call.config.n_heads, asked, positions)
    if record is not None:  # what happens inside attention is computed once more, for the reader
        scores = attention_scores(q, k, call.config.n_heads, positions)  # (B, H, Tq, T)
        note(record, f"{attn}.scores", scores)
        note(record, f"{attn}.probs", softmax_forward(scores)[0])  # (B, H, Tq, T)
    note(record, f"{attn}.context", context)
    out = linear(context, f"{attn}.o_proj", call, ops, record)
    out, ops[f"{attn}.dropout"] = dropout_forward(out, call.masks.get(attn))
    x = at_read(x, i, call) + out
    note(record, f"{attn}.residual", x)

    h = norm_forward(x, f"blocks.{i}.ln2", call, ops, record)
    up = linear(h, f"{mlp}.up_proj", call, ops, record)  # (B, Tq, F)
    asked = ("x",) if call.operands_wanted(f"{mlp}.up_proj") else ()
    act, ops[f"{mlp}.gelu"] = gelu_forward(up, asked)  # (B, Tq, F)
    note(record, f"{mlp}.gelu", act)
    out = linear(act, f"{mlp}.down_proj", call, ops, record)
    out, ops[f"{mlp}.dropout"] = dropout_forward(out, call.masks.get(mlp))
    x = x + out
    note(record, f"{mlp}.residual", x)
    return x


def block_backward(dx, i, cache, grads, record):
    """Return the gradient of the block's input, or None when nothing below needs it.

    Each residual sum x = x + f(x) passes its gradient on twice: as it is, and through f.
    """
    if dx is None:
        return None
    attn, mlp, ops = f"blocks.{i}.attn", f"blocks.{i}.mlp", cache.ops

    # x = x + dropout(down_proj(gelu(up_proj(ln2(x)))))
    note(record, f"{mlp}.residual", dx)
    d = dropout_backward(dx, ops[f"{mlp}.dropout"]).dx
    d = linear_back(d, f"{mlp}.down_proj", cache, grads, record)  # (B, Tq, F)
    note(record, f"{mlp}.gelu", d)
    d = gelu_backward(d, ops[f"{mlp}.gelu"]).dx if d is not None else None  # (B, Tq, F)
    d = linear_back(d, f"{mlp}.up_proj", cache, grads, record)
    d = norm_backward(d, f"blocks.{i}.ln2", cache, grads, record)
    if d is None:
        return None
    dx = dx + d

    # x = x + dropout(o_proj(attention(q_proj(h), k_proj(h), v_proj(h)))), h = ln1(x)
    note(record, f"{attn}.residual", dx)
    d = dropout_backward(dx, ops[f"{attn}.dropout"]).dx
    dcontext = linear_back(d, f"{attn}.o_proj", cache, grads, record)
    if dcontext is None:
        return None
    note(record, f"{attn}.context", dcontext)
    d = attention_backward(dcontext, ops[attn])
    note(record, f"{attn}.probs", d.dprobs)
    note(record, f"{attn}.scores", d.dscores)
    through_v = linear_back(d.dv, f"{attn}.v_proj", cache, grads, record)
    through_k = linear_back(d.dk, f"{attn}.k_proj", cache, grads, record)
    through_q = linear_back(d.dq, f"{attn}.q_proj", cache, grads, record)
    dh = add(at_read_backward(through_q, i, cache), through_k, through_v)  # h has gone three ways
    dh = norm_backward(dh, f"blocks.{i}.ln1", cache, grads, record)
    return at_read_backward(dx, i, cache) + dh if dh is not None else None


def at_read(x, i, call):
    """The position of each row of x that a classifier reads, (B, 1, C), in its last block; elsewhere x."""
    return x[np.arange(len(x)), call.read][:, None] if call.reads_one(i) else x


def at_read_backward(dy, i, cache):
    """y = x[row, read]: every other position gets nothing."""
    if dy is None or not cache.call.reads_one(i):
        return dy
    dx = np.zeros(cache.ops[f"blocks.{i}.attn.all_positions"], dtype=dy.dtype)  # (B, T, C)
    dx[np.arange(len(dx)), cache.call.read] = dy[:, 0]
    return dx


# ---------------------------------------------------------------- pieces that every block uses


def linear(x, module, call, ops, record):
    y, ops[module] = project_forward(x, module, call)
    note(record, module, y)
    return y


def linear_back(dy, module, cache, grads, record):
    if dy is None:
        return None
    note(record, module, dy)
    return project_backward(dy, module, cache, grads)


def norm_forward(x, module, call, ops, record):
    weight, bias = call.params[f"{module}.weight"], call.params[f"{module}.bias"]
    y, ops[module] = layer_norm_forward(x, weight, bias, call.config.layer_norm_eps, call.operands_wanted(module))
    note(record, module, y)
    return y


def norm_backward(dy, module, cache, grads, record):
    if dy is None:
        return None
    note(record, module, dy)
    dx, dweight, dbias = layer_norm_backward(dy, cache.ops[module])
    found = {f"{module}.weight": dweight, f"{module}.bias": dbias}
    grads |= {name: grad for name, grad in found.items() if grad is not None}
    return dx


# ---------------------------------------------------------------- the head


def head_module(config):
    """Whose weight the last linear layer uses: the token embedding's again, or the classifier's own."""
    return "head" if config.n_classes else "tok_emb"


def head_forward(h, call, ops, record):
    """logits = h Eᵀ at every position, or pooled Wᵀ of a classifier, whose h is (B, 1, C)."""
    if call.config.n_classes:
        h = h[:, 0]  # (B, C)
        note(record, "pooled", h)
    module = head_module(call.config)
    if call.groups:
        logits = rows_forward(h, module, call)
        note(record, "logits", logits)
        return logits
    weight = call.params[f"{module}.weight"]
    logits, ops["head"] = linear_forward(h, weight, None, call.operands_wanted(module, place="head"))
    note(record, "logits", logits)
    return logits


def head_backward(dlogits, cache, grads, record):
    dh, dweight, _ = linear_backward(dlogits, cache.ops["head"])
    if dweight is not None:
        grads[f"{head_module(cache.call.config)}.weight"] = dweight
    if dh is None or not cache.call.config.n_classes:
        return dh
    note(record, "pooled", dh)
    # pooled = h[:, 0]
    return dh[:, None]  # (B, 1, C)
