"""SPEC.md's model as a program, in its plainest form, with room for mistakes; see `operations.py`."""

import numpy as np

from . import operations as op

IGNORED = -100


# ---------------------------------------------------------------- one layer, adapted or not


def adapter_at(layer, settings, t, wrong):
    """(kind, its arrays, s, mask) of one layer, or None."""
    about = settings["adapter"]
    if about is None or layer not in about["layers"]:
        return None
    of = about["layers"][layer]
    first = next(iter(about["layers"].values()))
    r, alpha = (first if wrong == "the first layer's rank and alpha for all" else of)["r"], of["alpha"]
    alpha = first["alpha"] if wrong == "the first layer's rank and alpha for all" else alpha
    arrays = [t[f"{layer}.{leaf}"] for leaf in ("lora_A", "lora_B")]
    arrays += [t[f"{layer}.lora_magnitude_vector"]] if about["kind"] == "dora" else []
    mask = t.get(f"mask.{layer}.adapter")
    if wrong == "the first adapter's mask for all":
        first = t.get(f"mask.{next(iter(about['layers']))}.adapter")
        mask = first if mask is not None and first.shape == mask.shape else mask
    return about["kind"], arrays, op.scaling(r, alpha, about["rslora"], wrong), mask


def project(x, layer, settings, t, kept, wrong):
    """The layer's output; what its backward pass needs goes into `kept`."""
    weight, bias, adapter = t[f"{layer}.weight"], t[f"{layer}.bias"], adapter_at(layer, settings, t, wrong)
    if adapter is None:
        y, made = op.linear(x, weight, bias, wrong), None
    elif adapter[0] == "lora":
        _, arrays, s, mask = adapter
        y, made = op.lora(x, weight, bias, *arrays, s, mask, wrong)
    else:
        _, arrays, s, mask = adapter
        y, *made = op.dora(x, weight, bias, *arrays, s, mask, wrong)
    kept[layer] = x, made
    return y


def project_back(dy, layer, settings, t, kept, found, wrong):
    """dx; the gradients of the layer's arrays go into `found`."""
    (x, made), weight, adapter = kept[layer], t[f"{layer}.weight"], adapter_at(layer, settings, t, wrong)
    if adapter is None:
        dx, dweight, dbias = op.linear_back(dy, x, weight, wrong)
        grads = {"x": dx, "weight": dweight, "bias": dbias}
    elif adapter[0] == "lora":
        _, arrays, s, mask = adapter
        grads = op.lora_back(dy, x, weight, *arrays, s, mask, made, wrong)
    else:
        _, arrays, s, mask = adapter
        grads = op.dora_back(dy, x, weight, *arrays, s, mask, made, False, wrong)
    found |= {f"grad.{layer}": dy, **{f"grad.{layer}.{leaf}": g for leaf, g in grads.items() if leaf != "x"}}
    return grads["x"]


# ---------------------------------------------------------------- forward


def read_at(t, T, wrong):
    """The position that a classifier reads in each row."""
    at = {"classifier reads the last position": T - 1, "classifier reads the first position": 0}
    read = t["lengths"] - 1
    if wrong == "classifier reads one position further":
        read = np.minimum(t["lengths"], T - 1)
    return np.full_like(read, at[wrong]) if wrong in at else read


def forward(settings, t, wrong, positions=None):
    """(activations by name, what the backward pass needs). positions: those of the tokens, or None for 0, 1, …"""
    about, ids = settings["model"], t["ids"]
    T, eps = ids.shape[1], about["layer_norm_eps"]
    positions = np.arange(T) + (wrong == "positions from 1") if positions is None else positions
    a, kept = {}, {"positions": positions}
    a["tok_emb"], a["pos_emb"] = t["tok_emb.weight"][ids], t["pos_emb.weight"][positions]
    summed = a["tok_emb"] + (0.0 if wrong == "positions left out" else a["pos_emb"])
    x = a["embed"] = op.drop(summed, t.get("mask.embed"), wrong)

    def norm(name, x):
        a[name], x_hat, inv_std = op.layer_norm(x, t[f"{name}.weight"], t[f"{name}.bias"], eps, wrong)
        kept[name] = x, x_hat, inv_std
        return a[name]

    for i in range(about["n_layers"]):
        attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"
        reads = about["n_classes"] > 0 and i == about["n_layers"] - 1
        here = np.arange(len(ids)), read_at(t, T, wrong) if reads else None
        h = norm(f"blocks.{i}.ln1", x)
        inputs = {"q_proj": h[here][:, None] if reads else h, "k_proj": h, "v_proj": h}
        for name, of in inputs.items():
            a[f"{attn}.{name}"] = project(of, f"{attn}.{name}", settings, t, kept, wrong)
        qkv = [a[f"{attn}.{name}"] for name in inputs]
        stands = here[1][:, None] if reads else None
        made = op.attention(*qkv, about["n_heads"], stands, wrong)
        a |= {f"{attn}.{name}": array for name, array in zip(("scores", "probs", "context"), made)}
        out = project(made[2], f"{attn}.o_proj", settings, t, kept, wrong)
        a[f"{attn}.o_proj"] = out
        before = x[here][:, None] if reads else x
        before = 0.0 if wrong == "attention's residual left out" else h if wrong == "residual from the norm" else before
        x = a[f"{attn}.residual"] = before + op.drop(out, t.get(f"mask.{attn}"), wrong)
        h = norm(f"blocks.{i}.ln2", x)
        up = a[f"{mlp}.up_proj"] = project(h, f"{mlp}.up_proj", settings, t, kept, wrong)
        a[f"{mlp}.gelu"], kept[f"{mlp}.slope"] = op.gelu(up, wrong)
        out = a[f"{mlp}.down_proj"] = project(a[f"{mlp}.gelu"], f"{mlp}.down_proj", settings, t, kept, wrong)
        before = 0.0 if wrong == "the MLP's residual left out" else x
        x = a[f"{mlp}.residual"] = before + op.drop(out, t.get(f"mask.{mlp}"), wrong)
    h = norm("ln_f", x)
    if wrong == "last layer norm left out":
        h = a["ln_f"] = x
    if about["n_classes"]:
        h = a["pooled"] = h[:, 0]
    head = "head.weight" if about["n_classes"] else "tok_emb.weight"
    a["logits"] = op.linear(h, t[head], None, wrong)
    return a, kept


# ---------------------------------------------------------------- backward


def backward(settings, t, a, kept, dlogits, wrong):
    """Gradients of all activations and of all arrays, `grad.` in front of their names."""
    about, ids, n_heads = settings["model"], t["ids"], settings["model"]["n_heads"]
    classes, (B, T) = about["n_classes"], ids.shape
    found = {"grad.logits": dlogits}
    head = "head.weight" if classes else "tok_emb.weight"
    h = a["pooled" if classes else "ln_f"]
    dh, dhead, _ = op.linear_back(dlogits, h, t[head], wrong)
    if classes:
        found |= {"grad.head.weight": dhead, "grad.pooled": dh}
        dh = dh[:, None]

    def norm_back(name, dy):
        x, x_hat, inv_std = kept[name]
        dx, dweight, dbias = op.layer_norm_back(dy, x, t[f"{name}.weight"], x_hat, inv_std, wrong)
        found.update({f"grad.{name}": dy, f"grad.{name}.weight": dweight, f"grad.{name}.bias": dbias})
        return dx

    def layer_back(layer, dy):
        return project_back(dy, layer, settings, t, kept, found, wrong)

    def passed_on(dx, through_branch):
        return through_branch if wrong == "residual's own gradient left out" else dx + through_branch

    dx = norm_back("ln_f", dh)
    for i in reversed(range(about["n_layers"])):
        attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"
        reads = classes > 0 and i == about["n_layers"] - 1
        here = np.arange(B), read_at(t, T, wrong) if reads else None

        def spread(d, reads=reads, here=here):
            """Gradients of one position as those of all T."""
            if not reads:
                return d
            everywhere = np.zeros((B, T, d.shape[-1]), d.dtype)
            everywhere[here] = d[:, 0]
            return everywhere

        found[f"grad.{mlp}.residual"] = dx
        d = layer_back(f"{mlp}.down_proj", op.drop_back(dx, t.get(f"mask.{mlp}"), wrong))
        found[f"grad.{mlp}.gelu"] = d
        d = layer_back(f"{mlp}.up_proj", d * kept[f"{mlp}.slope"])
        dx = passed_on(dx, norm_back(f"blocks.{i}.ln2", d))
        found[f"grad.{attn}.residual"] = dx
        d = layer_back(f"{attn}.o_proj", op.drop_back(dx, t.get(f"mask.{attn}"), wrong))
        q, k, v, probs = (a[f"{attn}.{name}"] for name in ("q_proj", "k_proj", "v_proj", "probs"))
        dv, dprobs, dscores, dq, dk = op.attention_back(d, q, k, v, probs, n_heads, wrong)
        found |= {f"grad.{attn}.context": d, f"grad.{attn}.probs": dprobs, f"grad.{attn}.scores": dscores}
        dh = {name: layer_back(f"{attn}.{name}", dy) for name, dy in (("v_proj", dv), ("k_proj", dk), ("q_proj", dq))}
        dh["q_proj"] = spread(dh["q_proj"])
        dh = sum(d for name, d in dh.items() if wrong != f"{name[0]}'s part of grad.ln1 left out")
        dx = passed_on(spread(dx), norm_back(f"blocks.{i}.ln1", dh))
    found["grad.embed"] = dx
    dtok = op.drop_back(dx, t.get("mask.embed"), wrong)
    found["grad.pos_emb"] = dtok.mean(axis=0) if wrong == "position gradient averaged" else dtok.sum(axis=0)
    table = np.zeros_like(t["pos_emb.weight"])
    table[kept["positions"]] = found["grad.pos_emb"]
    found |= {"grad.pos_emb.weight": table, "grad.tok_emb": dtok}
    dtable = op.embedding_back(dtok, ids, t["tok_emb.weight"], wrong)
    terms = {"the tied head's term left out": dtable, "the embedding's own term left out": dhead}
    found["grad.tok_emb.weight"] = dtable if classes else terms.get(wrong, dtable + dhead)
    return found


def loss_and_gradients(settings, t, wrong):
    """Activations, loss and all gradients, by name."""
    a, kept = forward(settings, t, wrong)
    loss, dlogits = op.cross_entropy(a["logits"], t["targets"], IGNORED, 1.0, wrong)
    return {**a, "loss": loss, **backward(settings, t, a, kept, dlogits, wrong)}


# ---------------------------------------------------------------- merging, generation


def deltas(settings, t, wrong):
    found = {}
    for layer in (settings["adapter"] or {"layers": {}})["layers"]:
        kind, arrays, s, _ = adapter_at(layer, settings, t, wrong)
        weight = t[f"{layer}.weight"]
        delta = op.lora_delta(*arrays, s, wrong) if kind == "lora" else op.dora_delta(weight, *arrays, s, wrong)
        found[f"{layer}.weight"] = delta
    return found


def merged(settings, t, changes, wrong):
    """Settings and arrays of the model with its adapter's updates added, and without masks."""
    weights = {name: t[name] + delta for name, delta in changes.items()}
    keep_masks = wrong == "masks in the merged model"
    inputs = {n: a for n, a in {**t, **weights}.items() if keep_masks or not n.startswith("mask.")}
    return {**settings, "adapter": None}, inputs


def model(settings, t, wrong):
    found = loss_and_gradients(settings, t, wrong)
    if settings["adapter"]:
        changes = deltas(settings, t, wrong)
        bare, weights = merged(settings, t, changes, wrong)
        found |= {f"delta.{name}": delta for name, delta in changes.items()}
        found |= {f"merged.{name}": weights[name] for name in changes}
        found["merged.logits"] = forward(bare, weights, wrong)[0]["logits"]
    return found


def generate(settings, t, wrong):
    """Without a cache: the whole text is read anew for each token."""
    if wrong == "adapter left out while generating":
        settings = {**settings, "adapter": None}
    bare, weights = merged(settings, t, deltas(settings, t, wrong), wrong)
    ids, found, T = t["ids"], {}, t["ids"].shape[1]
    for step in range(settings["n_new"]):
        positions = np.arange(ids.shape[1])
        if wrong == "a new token's position starts at 0":
            positions[T:] = 0
        if wrong == "a new token's position one too high":
            positions[T:] += 1
        a, _ = forward(bare, {**weights, "ids": ids}, wrong, positions)
        logits = a["logits"][:, 0 if wrong == "logits of the first token" else -1]
        order = np.sort(logits, axis=-1)
        found |= {f"step.{step}.logits": logits, f"step.{step}.margin": order[:, -1] - order[:, -2]}
        ids = np.concatenate([ids, logits.argmax(axis=-1)[:, None]], axis=1)
    layers = range(settings["model"]["n_layers"])
    cached = {n: np.stack([a[f"blocks.{i}.attn.{n[0]}_proj"] for i in layers]) for n in ("keys", "values")}
    return {**found, "tokens": ids, **cached}
