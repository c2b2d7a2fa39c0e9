"""The models of SPEC.md, GPT-2, Llama and BERT, with adapters: every activation, every gradient, and generation.

A model is defined by a case's `settings` and by its inputs `t`, a dict of all parameters, adapters and masks by name.
Arrays that only this program needs have names that start with `saved.`.
"""

import numpy as np

from . import calls
from . import operations as op


def is_encoder(settings):
    return "pooling" in settings["model"]


def norm_name(place, settings):
    """The name of a norm in the model, given its name in Llama: "blocks.0.norm1" is "blocks.0.ln1" in GPT-2."""
    return place if "rope_theta" in settings["model"] or is_encoder(settings) else place.replace("norm", "ln")


def apply(operation, name, values, acts):
    """Compute an activation with an operation, and save what the backward pass reads."""
    outputs = calls.forward(op, operation, values)
    acts[f"saved.{name}"] = operation, values | outputs
    acts[name] = outputs["y"]
    return acts[name]


def apply_backward(grad, name, acts, grads):
    """The gradients of the operands of an activation's operation, by name."""
    operation, values = acts[f"saved.{name}"]
    of_operands = calls.backward(op, operation, values | {"grad_y": grad})
    grads[name] = grad
    grads |= {f"{name}.{operand}": of_operand for operand, of_operand in of_operands.items()}
    return of_operands


def norm(x, place, settings, t, acts, of_encoder=None):
    """Apply a norm. If `of_encoder` is True, a decoder returns x unchanged; if it is False, an encoder does."""
    if of_encoder not in (None, is_encoder(settings)):
        return x
    operation = "rms_norm" if "rope_theta" in settings["model"] else "layer_norm"
    name, eps = norm_name(place, settings), settings["model"][f"{operation}_eps"]
    y = apply(operation, name, {"x": x, "eps": eps} | calls.under(f"{name}.", t), acts)
    return y


def norm_backward(grad_y, place, settings, acts, grads, of_encoder=None):
    if of_encoder not in (None, is_encoder(settings)):
        return grad_y
    return apply_backward(grad_y, norm_name(place, settings), acts, grads)["x"]


def arrays_of(name, settings, t):
    """The operation of a linear layer, and its arrays by name; if it is adapted, also s, m (for DoRA) and the mask."""
    arrays, adapter = calls.under(f"{name}.", t), settings["adapter"]
    if adapter is None or name not in adapter["layers"]:
        return "linear", arrays
    of = adapter["layers"][name]
    s = op.scale(of["r"], of["alpha"], adapter["rslora"])
    m, mask = arrays.get("lora_magnitude_vector"), t.get(f"mask.{name}.adapter")
    return adapter["kind"], arrays | {"s": s, "m": m, "mask": mask}


def layer(x, name, settings, t, acts):
    """A linear layer, adapted or not."""
    operation, arrays = arrays_of(name, settings, t)
    return apply(operation, name, {"x": x} | arrays, acts)


def take(x, at):
    """Select one position of each row, (B, 1, C), or all positions."""
    if at is not None:
        x = np.take_along_axis(x, at[:, :, None], axis=1)
    return x


def take_backward(grad_y, at, T):
    """The gradients at all T positions, with 0 at positions that were not selected."""
    if at is not None:
        grad_y = op.one_hot(at[:, 0], T)[:, :, None] * grad_y
    return grad_y


def attention_forward(x, block, at, start, settings, t, past, acts):
    """The attention half of a block.

    at : (B, 1), the positions that a classifier reads in the last block; None elsewhere
    past : the activations of the `start` earlier tokens, or None
    """
    sizes, attn = settings["model"], f"{block}.attn"
    h = norm(x, f"{block}.norm1", settings, t, acts, False)
    q = layer(take(h, at), f"{attn}.q_proj", settings, t, acts)
    k = layer(h, f"{attn}.k_proj", settings, t, acts)
    v = layer(h, f"{attn}.v_proj", settings, t, acts)
    if "head_norm" in sizes:
        q = head_norm(q, f"{attn}.q_norm", sizes, t, acts)
        k = head_norm(k, f"{attn}.k_norm", sizes, t, acts)
    if turns(block, sizes):
        positions = np.tile(np.arange(start, start + x.shape[1]), (len(x), 1))
        q = turned(q, f"{attn}.q_rotated", positions if at is None else at, sizes, acts)
        k = turned(k, f"{attn}.k_rotated", positions, sizes, acts)
    if past:
        k = np.concatenate([past[f"saved.{attn}"][1], k], axis=1)
        v = np.concatenate([past[f"saved.{attn}"][2], v], axis=1)
    last = t["lengths"][:, None] - 1 if is_encoder(settings) else at
    scores, probs, context = op.attention(q, k, v, sizes["n_heads"], last)
    acts |= {f"{attn}.scores": scores, f"{attn}.probs": probs, f"{attn}.context": context}
    acts[f"saved.{attn}"] = q, k, v, probs
    branch = op.dropout(layer(context, f"{attn}.o_proj", settings, t, acts), t.get(f"mask.{attn}"))
    x = acts[f"{attn}.residual"] = take(x, at) + branch
    return norm(x, f"{block}.norm1", settings, t, acts, True)


def attention_backward(grad_x, block, at, T, settings, t, acts, grads):
    sizes, attn = settings["model"], f"{block}.attn"
    grad_x = norm_backward(grad_x, f"{block}.norm1", settings, acts, grads, True)
    grads[f"{attn}.residual"] = grad_x
    grad_branch = op.dropout_backward(grad_x, t.get(f"mask.{attn}"))
    grad_context = apply_backward(grad_branch, f"{attn}.o_proj", acts, grads)["x"]
    of_attention = op.attention_backward(grad_context, *acts[f"saved.{attn}"], sizes["n_heads"])
    grad_v, grad_probs, grad_scores, grad_q, grad_k = of_attention
    grads |= {f"{attn}.context": grad_context, f"{attn}.probs": grad_probs, f"{attn}.scores": grad_scores}
    if turns(block, sizes):
        grad_q = apply_backward(grad_q, f"{attn}.q_rotated", acts, grads)["x"]
        grad_k = apply_backward(grad_k, f"{attn}.k_rotated", acts, grads)["x"]
    if "head_norm" in sizes:
        grad_q = head_norm_backward(grad_q, f"{attn}.q_norm", acts, grads)
        grad_k = head_norm_backward(grad_k, f"{attn}.k_norm", acts, grads)
    through_q = apply_backward(grad_q, f"{attn}.q_proj", acts, grads)["x"]
    through_k = apply_backward(grad_k, f"{attn}.k_proj", acts, grads)["x"]
    through_v = apply_backward(grad_v, f"{attn}.v_proj", acts, grads)["x"]
    grad_h = take_backward(through_q, at, T) + through_k + through_v
    return take_backward(grad_x, at, T) + norm_backward(grad_h, f"{block}.norm1", settings, acts, grads, False)


def turns(block, sizes):
    """Whether a block has rotary positions."""
    return "rope_theta" in sizes and int(block.split(".")[1]) not in sizes.get("unrotated", ())


def head_norm(x, name, sizes, t, acts):
    heads = x.reshape(*x.shape[:2], -1, sizes["head_size"])
    values = {"x": heads, "weight": t[f"{name}.weight"], "eps": sizes["rms_norm_eps"]}
    acts[name] = apply("rms_norm", name, values, acts).reshape(x.shape)
    return acts[name]


def head_norm_backward(grad_y, name, acts, grads):
    heads = acts[f"saved.{name}"][1]["x"]
    grad_x = apply_backward(grad_y.reshape(heads.shape), name, acts, grads)["x"]
    grads[name] = grad_y
    return grad_x.reshape(grad_y.shape)


def turned(x, name, positions, sizes, acts):
    divisors = np.array(sizes.get("rope_divisors", 1.0))
    cos, sin = op.rope_tables(positions, sizes["head_size"], sizes["rope_theta"], divisors)
    return apply("rope", name, {"x": x, "cos": cos, "sin": sin}, acts)


def mlp_forward(x, block, settings, t, acts):
    """The MLP half of a block."""
    sizes, mlp = settings["model"], f"{block}.mlp"
    h = norm(x, f"{block}.norm2", settings, t, acts, False)
    if "rope_theta" in sizes:
        gate = layer(h, f"{mlp}.gate_proj", settings, t, acts)
        up = layer(h, f"{mlp}.up_proj", settings, t, acts)
        inner = apply("swiglu", f"{mlp}.swiglu", {"gate": gate, "up": up}, acts)
    else:
        up = layer(h, f"{mlp}.up_proj", settings, t, acts)
        inner = apply("gelu_erf" if is_encoder(settings) else "gelu", f"{mlp}.gelu", {"x": up}, acts)
    branch = op.dropout(layer(inner, f"{mlp}.down_proj", settings, t, acts), t.get(f"mask.{mlp}"))
    x = acts[f"{mlp}.residual"] = x + branch
    return norm(x, f"{block}.norm2", settings, t, acts, True)


def mlp_backward(grad_x, block, settings, t, acts, grads):
    mlp = f"{block}.mlp"
    grad_x = norm_backward(grad_x, f"{block}.norm2", settings, acts, grads, True)
    grads[f"{mlp}.residual"] = grad_x
    grad_branch = op.dropout_backward(grad_x, t.get(f"mask.{mlp}"))
    grad_inner = apply_backward(grad_branch, f"{mlp}.down_proj", acts, grads)["x"]
    if "rope_theta" in settings["model"]:
        of_swiglu = apply_backward(grad_inner, f"{mlp}.swiglu", acts, grads)
        through_up = apply_backward(of_swiglu["up"], f"{mlp}.up_proj", acts, grads)["x"]
        through_gate = apply_backward(of_swiglu["gate"], f"{mlp}.gate_proj", acts, grads)["x"]
        grad_h = through_gate + through_up
    else:
        grad_up = apply_backward(grad_inner, f"{mlp}.gelu", acts, grads)["x"]
        grad_h = apply_backward(grad_up, f"{mlp}.up_proj", acts, grads)["x"]
    return grad_x + norm_backward(grad_h, f"{block}.norm2", settings, acts, grads, False)


def read_at(settings, t, i):
    """The one position per row, (B, 1), that block i computes if it is a classifier's last; None if it computes all."""
    sizes = settings["model"]
    if sizes["n_classes"] and not is_encoder(settings) and i == sizes["n_layers"] - 1:
        return t["lengths"][:, None] - 1
    return None


def head_of(settings, t):
    tied = not settings["model"]["n_classes"] and settings["model"].get("tied", True)
    return t["tok_emb.weight" if tied else "head.weight"], tied


def forward(settings, t, past=None):
    """All activations. `past` holds the activations of earlier tokens; their keys and values are reused."""
    sizes, acts = settings["model"], {}
    start = past["saved.blocks.0.attn"][1].shape[1] if past else 0
    x = acts["tok_emb"] = op.embedding(t["ids"], t["tok_emb.weight"])
    if "rope_theta" not in sizes:
        places = np.arange(start, start + t["ids"].shape[1])
        acts["pos_emb"] = op.embedding(places, t["pos_emb.weight"])
        if is_encoder(settings):
            acts["type_emb"] = op.embedding(np.zeros_like(places), t["type_emb.weight"])
            acts["place"] = acts["pos_emb"] + acts["type_emb"]
            acts["sum"] = x + acts["place"]
            x = acts["embed"] = op.dropout(norm(acts["sum"], "emb_norm", settings, t, acts), t.get("mask.embed"))
        else:
            x = acts["embed"] = op.dropout(x + acts["pos_emb"], t.get("mask.embed"))
    for i in range(sizes["n_layers"]):
        x = attention_forward(x, f"blocks.{i}", read_at(settings, t, i), start, settings, t, past, acts)
        x = mlp_forward(x, f"blocks.{i}", settings, t, acts)
    x = norm(x, "norm_f", settings, t, acts, False)
    if sizes["n_classes"]:
        of_tokens = {"x": x, "lengths": t["lengths"]}
        x = acts["pooled"] = apply("mean_pool", "pooled", of_tokens, acts) if is_encoder(settings) else x[:, 0]
    acts["logits"] = op.linear(x, head_of(settings, t)[0], t.get("head.bias"))
    return acts


def backward(grad_logits, settings, t, acts):
    """The gradients of all activations and parameters."""
    sizes, grads, T = settings["model"], {"logits": grad_logits}, t["ids"].shape[1]
    weight, tied = head_of(settings, t)
    x = acts["pooled"] if sizes["n_classes"] else acts[norm_name("norm_f", settings)]
    grad_x, grad_head, grads["head.bias"] = op.linear_backward(grad_logits, x, weight)
    if sizes["n_classes"]:
        grads["pooled"] = grad_x
        grad_x = apply_backward(grad_x, "pooled", acts, grads)["x"] if is_encoder(settings) else grad_x[:, None]
    grad_x = norm_backward(grad_x, "norm_f", settings, acts, grads, False)
    for i in reversed(range(sizes["n_layers"])):
        grad_x = mlp_backward(grad_x, f"blocks.{i}", settings, t, acts, grads)
        grad_x = attention_backward(grad_x, f"blocks.{i}", read_at(settings, t, i), T, settings, t, acts, grads)
    if "rope_theta" not in sizes:
        grads["embed"] = grad_x
        grad_x = op.dropout_backward(grad_x, t.get("mask.embed"))
        if is_encoder(settings):
            grad_x = grads["sum"] = norm_backward(grad_x, "emb_norm", settings, acts, grads)
            grads["place"] = grads["type_emb"] = grad_x.sum(axis=0)
            types = np.zeros(T, dtype=int), t["type_emb.weight"]
            grads["type_emb.weight"] = op.embedding_backward(grads["type_emb"], *types)
        grads["pos_emb"] = grad_x.sum(axis=0)
        grads["pos_emb.weight"] = op.embedding_backward(grads["pos_emb"], np.arange(T), t["pos_emb.weight"])
    grads["tok_emb"] = grad_x
    grads["tok_emb.weight"] = op.embedding_backward(grad_x, t["ids"], t["tok_emb.weight"])
    if tied:
        grads["tok_emb.weight"] = grads["tok_emb.weight"] + grad_head
    else:
        grads["head.weight"] = grad_head
    return grads


def loss_of(settings, t):
    acts = forward(settings, t)
    acts["loss"] = op.cross_entropy(acts["logits"], t["targets"], -100)
    return acts


def loss_and_gradients(settings, t):
    acts = loss_of(settings, t)
    grads = backward(op.cross_entropy_backward(1.0, acts["logits"], t["targets"], -100), settings, t, acts)
    return acts, grads


def merged(settings, t):
    """The update of each adapted layer, and the parameters with all updates added."""
    deltas, params = {}, dict(t)
    for name in (settings["adapter"] or {"layers": ()})["layers"]:
        kind, arrays = arrays_of(name, settings, t)
        deltas[f"{name}.weight"] = calls.delta(op, kind, arrays)
        params[f"{name}.weight"] = arrays["weight"] + deltas[f"{name}.weight"]
    return deltas, params


def shown(acts):
    return {name: array for name, array in acts.items() if not name.startswith("saved.")}


def model(settings, t):
    """All outputs of a case; with `until` in the settings, only those of the forward pass."""
    if "until" in settings:
        return shown(loss_of(settings, t))
    acts, grads = loss_and_gradients(settings, t)
    deltas, params = merged(settings, t)
    outputs = shown(acts)
    outputs |= {f"grad.{name}": grad for name, grad in grads.items()}
    outputs |= {f"delta.{name}": delta for name, delta in deltas.items()}
    outputs |= {f"merged.{name}": params[name] for name in deltas}
    without_masks = {name: array for name, array in params.items() if not name.startswith("mask.")}
    outputs["merged.logits"] = forward(settings | {"adapter": None}, without_masks)["logits"]
    return outputs


def generate(settings, t):
    sizes, outputs, past, tokens, ids = settings["model"], {}, None, t["ids"], t["ids"]
    for step in range(settings["n_new"]):
        past = forward(settings, t | {"ids": ids}, past)
        logits = past["logits"][:, -1]
        largest = np.sort(logits, axis=-1)
        outputs[f"step.{step}.logits"] = logits
        outputs[f"step.{step}.margin"] = largest[:, -1] - largest[:, -2]
        ids = np.argmax(logits, axis=-1)[:, None]
        tokens = np.concatenate([tokens, ids], axis=1)
    _, keys, values, _ = zip(*(past[f"saved.blocks.{i}.attn"] for i in range(sizes["n_layers"])))
    return outputs | {"tokens": tokens, "keys": np.stack(keys), "values": np.stack(values)}
