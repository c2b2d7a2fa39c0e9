"""SPEC.md's model as a program, in its plainest form; see `operations.py`."""

import numpy as np

from .operations import (
    attention,
    attention_back,
    cross_entropy,
    dora,
    dora_back,
    dora_delta,
    drop,
    drop_back,
    embedding_back,
    gelu,
    layer_norm,
    layer_norm_back,
    linear,
    linear_back,
    lora,
    lora_back,
    lora_delta,
    scaling,
)

IGNORED = -100


# ---------------------------------------------------------------- one layer, adapted or not


def adapter_at(layer, settings, t):
    """(is it DoRA, its arrays, s, mask) of one layer, or None."""
    about = settings["adapter"]
    if about is None or layer not in about["layers"]:
        return None
    own, is_dora = about["layers"][layer], about["kind"] == "dora"
    arrays = [t[f"{layer}.{leaf}"] for leaf in ("lora_A", "lora_B", *["lora_magnitude_vector"] * is_dora)]
    mask = t.get(f"mask.{layer}.adapter")
    return is_dora, arrays, scaling(own["r"], own["alpha"], about["rslora"]), mask


def project(x, layer, settings, t, caches):
    """The layer's output; what its backward pass needs goes into `caches`."""
    weight, bias, adapter = t[f"{layer}.weight"], t[f"{layer}.bias"], adapter_at(layer, settings, t)
    if adapter is None:
        y, cache = linear(x, weight, bias), None
    else:
        is_dora, arrays, s, mask = adapter
        y, cache = (dora if is_dora else lora)(x, weight, bias, *arrays, s, mask)
    caches[layer] = x, cache
    return y


def project_back(dy, layer, settings, t, caches, grads):
    """dx; the gradients of the layer's output and arrays go into `grads`."""
    (x, cache), weight, adapter = caches[layer], t[f"{layer}.weight"], adapter_at(layer, settings, t)
    if adapter is None:
        own = linear_back(dy, x, weight)
    else:
        is_dora, arrays, s, mask = adapter
        own = (dora_back if is_dora else lora_back)(dy, x, weight, *arrays, s, mask, cache)
    dx = own.pop("x")
    grads |= {f"grad.{layer}": dy, **{f"grad.{layer}.{leaf}": g for leaf, g in own.items()}}
    return dx


# ---------------------------------------------------------------- forward


def read_at(t):
    """The position that a classifier reads in each row."""
    return t["lengths"] - 1


def forward(settings, t, positions=None):
    """(activations by name, what the backward pass needs). positions: those of the tokens, or None for 0, 1, …"""
    about, ids = settings["model"], t["ids"]
    (B, T), eps = ids.shape, about["layer_norm_eps"]
    positions = np.arange(T) if positions is None else positions
    a, caches = {}, {"positions": positions}
    a["tok_emb"], a["pos_emb"] = t["tok_emb.weight"][ids], t["pos_emb.weight"][positions]
    x = a["embed"] = drop(a["tok_emb"] + a["pos_emb"], t.get("mask.embed"))

    def norm(name, x):
        a[name], caches[name] = layer_norm(x, t[f"{name}.weight"], t[f"{name}.bias"], eps)
        return a[name]

    def layer(name, x):
        a[name] = project(x, name, settings, t, caches)
        return a[name]

    for i in range(about["n_layers"]):
        attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"
        at = read_at(t)[:, None] if about["n_classes"] and i == about["n_layers"] - 1 else None

        def pick(x, at=at):
            """The one position of each row that the last block of a classifier goes on with."""
            return x if at is None else x[np.arange(B)[:, None], at]

        h = norm(f"blocks.{i}.ln1", x)
        q, k, v = layer(f"{attn}.q_proj", pick(h)), layer(f"{attn}.k_proj", h), layer(f"{attn}.v_proj", h)
        made = attention(q, k, v, about["n_heads"], at)
        a |= {f"{attn}.{name}": array for name, array in zip(("scores", "probs", "context"), made)}
        out = layer(f"{attn}.o_proj", a[f"{attn}.context"])
        x = a[f"{attn}.residual"] = pick(x) + drop(out, t.get(f"mask.{attn}"))
        up = layer(f"{mlp}.up_proj", norm(f"blocks.{i}.ln2", x))
        a[f"{mlp}.gelu"], caches[f"{mlp}.slope"] = gelu(up)
        out = layer(f"{mlp}.down_proj", a[f"{mlp}.gelu"])
        x = a[f"{mlp}.residual"] = x + drop(out, t.get(f"mask.{mlp}"))
    h = norm("ln_f", x)
    if about["n_classes"]:
        h = a["pooled"] = h[:, 0]
    a["logits"] = linear(h, t["head.weight" if about["n_classes"] else "tok_emb.weight"], None)
    return a, caches


# ---------------------------------------------------------------- backward


def passed_on(dx, through_branch):
    """The gradient below a residual connection."""
    return dx + through_branch


def backward(settings, t, a, caches, dlogits):
    """Gradients of all activations and of all arrays, `grad.` in front of their names."""
    about, ids = settings["model"], t["ids"]
    classes, (B, T) = about["n_classes"], ids.shape
    grads = {"grad.logits": dlogits}
    head = linear_back(dlogits, a["pooled" if classes else "ln_f"], t["head.weight" if classes else "tok_emb.weight"])
    dh, dhead = head["x"], head["weight"]
    if classes:
        grads |= {"grad.head.weight": dhead, "grad.pooled": dh}
        dh = dh[:, None]

    def norm_back(name, dy):
        own = layer_norm_back(dy, t[f"{name}.weight"], caches[name])
        dx = own.pop("x")
        grads.update({f"grad.{name}": dy, **{f"grad.{name}.{leaf}": g for leaf, g in own.items()}})
        return dx

    def layer_back(layer, dy):
        return project_back(dy, layer, settings, t, caches, grads)

    dx = norm_back("ln_f", dh)
    for i in reversed(range(about["n_layers"])):
        attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"
        reads_one = classes and i == about["n_layers"] - 1

        def spread(d, reads_one=reads_one):
            """Gradients of one position as those of all T."""
            if not reads_one:
                return d
            everywhere = np.zeros((B, T, d.shape[-1]), d.dtype)
            everywhere[np.arange(B), read_at(t)] = d[:, 0]
            return everywhere

        grads[f"grad.{mlp}.residual"] = dx
        d = grads[f"grad.{mlp}.gelu"] = layer_back(f"{mlp}.down_proj", drop_back(dx, t.get(f"mask.{mlp}")))
        d = layer_back(f"{mlp}.up_proj", d * caches[f"{mlp}.slope"])
        dx = grads[f"grad.{attn}.residual"] = passed_on(dx, norm_back(f"blocks.{i}.ln2", d))
        d = grads[f"grad.{attn}.context"] = layer_back(f"{attn}.o_proj", drop_back(dx, t.get(f"mask.{attn}")))
        q, k, v, probs = (a[f"{attn}.{name}"] for name in ("q_proj", "k_proj", "v_proj", "probs"))
        inner = attention_back(d, q, k, v, probs, about["n_heads"])
        grads |= {f"grad.{attn}.{name}": inner[name] for name in ("probs", "scores")}
        dv, dk, dq = (layer_back(f"{attn}.{name}_proj", inner[name]) for name in "vkq")
        dx = passed_on(spread(dx), norm_back(f"blocks.{i}.ln1", dv + dk + spread(dq)))
    grads["grad.embed"] = dx
    dtok = grads["grad.tok_emb"] = drop_back(dx, t.get("mask.embed"))
    grads["grad.pos_emb"] = dtok.sum(axis=0)
    table = grads["grad.pos_emb.weight"] = np.zeros_like(t["pos_emb.weight"])
    table[caches["positions"]] = grads["grad.pos_emb"]
    dtable = embedding_back(dtok, ids, t["tok_emb.weight"])
    grads["grad.tok_emb.weight"] = dtable if classes else dtable + dhead
    return grads


def loss_and_gradients(settings, t):
    """Activations, loss and all gradients, by name."""
    a, caches = forward(settings, t)
    loss, dlogits = cross_entropy(a["logits"], t["targets"], IGNORED, 1.0)
    return {**a, "loss": loss, **backward(settings, t, a, caches, dlogits)}


# ---------------------------------------------------------------- merging, whole cases


def deltas(settings, t):
    """ΔW of every adapted weight."""
    changes = {}
    for layer in (settings["adapter"] or {"layers": {}})["layers"]:
        is_dora, arrays, s, _ = adapter_at(layer, settings, t)
        changes[f"{layer}.weight"] = (dora_delta if is_dora else lora_delta)(t[f"{layer}.weight"], *arrays, s)
    return changes


def merged(settings, t, changes):
    """Settings and arrays of the model with its adapter's updates added, and without masks."""
    weights = {name: t[name] + delta for name, delta in changes.items()}
    return {**settings, "adapter": None}, {n: a for n, a in {**t, **weights}.items() if not n.startswith("mask.")}


def model_case(settings, t):
    outputs = loss_and_gradients(settings, t)
    if settings["adapter"]:
        changes = deltas(settings, t)
        bare, weights = merged(settings, t, changes)
        outputs |= {f"delta.{name}": delta for name, delta in changes.items()}
        outputs |= {f"merged.{name}": weights[name] for name in changes}
        outputs["merged.logits"] = forward(bare, weights)[0]["logits"]
    return outputs


def generate_case(settings, t):
    """Without a cache: the whole text is read anew for each token."""
    bare, weights = merged(settings, t, deltas(settings, t))
    ids, outputs = t["ids"], {}
    for step in range(settings["n_new"]):
        positions = np.arange(ids.shape[1])
        a, _ = forward(bare, {**weights, "ids": ids}, positions)
        logits = a["logits"][:, -1]
        order = np.sort(logits, axis=-1)
        outputs |= {f"step.{step}.logits": logits, f"step.{step}.margin": order[:, -1] - order[:, -2]}
        ids = np.concatenate([ids, logits.argmax(axis=-1)[:, None]], axis=1)
    layers = range(settings["model"]["n_layers"])
    cached = {n: np.stack([a[f"blocks.{i}.attn.{n[0]}_proj"] for i in layers]) for n in ("keys", "values")}
    return {**outputs, "tokens": ids, **cached}
