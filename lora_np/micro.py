"""LoRA in one file: a small GPT with every gradient written by hand, full fine-tuning, and LoRA.

    y = x Wᵀ + b + s (x Aᵀ) Bᵀ   W (out, in) frozen, A (r, in) and B (out, r) trained, s = alpha / r

All arrays are in flat dicts, keyed by name. A batch of B sequences of T tokens is N = B T rows. Only attention mixes
rows. C: model width, H: number of heads, D = C / H: head size, F: MLP width, V: vocabulary size, r: rank.
"""

import numpy as np

FIRST = "that waked the priest all shaven and shorn, that married the man all tattered and torn"
SECOND = "for want of a nail the shoe was lost, for want of a shoe the horse was lost, and so on"


def init_params(V, T, C, F, n_layers, rng):
    """Small random weights, zero biases, and layer norms with weights of one."""
    shapes = {"tok_emb": (V, C), "pos_emb": (T, C), "ln_f": (C,)}
    for block in [f"blocks.{i}" for i in range(n_layers)]:
        shapes |= {f"{block}.ln1": (C,), f"{block}.ln2": (C,)}
        shapes |= {f"{block}.attn.{x}_proj": (C, C) for x in "qkvo"}
        shapes |= {f"{block}.mlp.up_proj": (F, C), f"{block}.mlp.down_proj": (C, F)}
    params = {f"{name}.bias": np.zeros(n[0]) for name, n in shapes.items() if "emb" not in name}
    for name, shape in shapes.items():
        params[f"{name}.weight"] = rng.normal(0, 0.02, shape) if len(shape) == 2 else np.ones(shape)
    return params


def init_lora(params, r, rng):
    """Adapters on q and v. B A is zero because B is, so training starts from the base model."""
    adapter = {}
    for name in [name for name in params if name.endswith(("q_proj.weight", "v_proj.weight"))]:
        n_out, n_in = params[name].shape
        adapter[name.replace("weight", "lora_A")] = rng.uniform(-1, 1, (r, n_in)) / n_in**0.5
        adapter[name.replace("weight", "lora_B")] = np.zeros((n_out, r))
    return adapter


def linear_forward(x, name, params, s, acts):
    """y = x Wᵀ + b, and + s (x Aᵀ) Bᵀ where the layer has an adapter: (N, in) to (N, out)."""
    acts[name] = x
    y = x @ params[f"{name}.weight"].T + params[f"{name}.bias"]
    if f"{name}.lora_A" in params:
        u = x @ params[f"{name}.lora_A"].T  # (N, r); the large matrix B A is never formed
        y += s * u @ params[f"{name}.lora_B"].T
    return y


def linear_backward(dy, name, params, s, acts, grads):
    """Return dx (N, in), and add the layer's gradients to `grads`, whose keys name the trained arrays."""
    x = acts[name]
    # y = x Wᵀ + b, entry by entry: y_no = Σ_i x_ni W_oi + b_o
    dx = dy @ params[f"{name}.weight"]  # dx_ni = Σ_o dy_no W_oi
    if f"{name}.weight" in grads:  # W is frozen in LoRA, which saves this product
        grads[f"{name}.weight"] += dy.T @ x  # dW_oi = Σ_n dy_no x_ni
        grads[f"{name}.bias"] += dy.sum(axis=0)  # db_o = Σ_n dy_no
    if f"{name}.lora_A" in params:
        A, B = params[f"{name}.lora_A"], params[f"{name}.lora_B"]
        du = s * dy @ B  # (N, r), from y = … + s u Bᵀ; zero while B is zero: A changes one step later
        dx += du @ A  # (N, in), from u = x Aᵀ; x is used twice, so its gradient is a sum
        if f"{name}.lora_A" in grads:
            grads[f"{name}.lora_A"] += du.T @ x  # (r, in)
            grads[f"{name}.lora_B"] += s * dy.T @ (x @ A.T)  # (out, r)
    return dx


def layer_norm_forward(x, name, params, acts):
    """y = x̂ w + b with x̂ = (x − mean) / σ and σ = √(variance + ε), row by row."""
    sigma = np.sqrt(x.var(1, keepdims=True) + 1e-5)  # (N, 1)
    x_hat = (x - x.mean(1, keepdims=True)) / sigma  # (N, C)
    acts[name] = x_hat, sigma
    return x_hat * params[f"{name}.weight"] + params[f"{name}.bias"]


def layer_norm_backward(dy, name, params, acts, grads):
    """Return dx; x_i affects x̂ directly and through the mean and σ: ∂x̂_j/∂x_i = (δ_ij − 1/C − x̂_i x̂_j / C) / σ."""
    x_hat, sigma = acts[name]
    if f"{name}.weight" in grads:
        grads[f"{name}.weight"] += (dy * x_hat).sum(axis=0)  # (C,)
        grads[f"{name}.bias"] += dy.sum(axis=0)  # (C,)
    d = dy * params[f"{name}.weight"]  # the gradient of x̂, (N, C)
    return (d - d.mean(1, keepdims=True) - x_hat * (d * x_hat).mean(1, keepdims=True)) / sigma


def gelu(x, c=(2 / np.pi) ** 0.5):
    """y = x g with the gate g = ½ (1 + tanh u), and its slope dy/dx, with dg/du = 2 g (1 − g)."""
    g = 0.5 * (1 + np.tanh(c * (x + 0.044715 * x**3)))
    return x * g, g + x * 2 * g * (1 - g) * c * (1 + 3 * 0.044715 * x**2)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention_forward(q, k, v, heads, name, acts):
    """In each head h, token i averages the values of the tokens j ≤ i. heads is (B, T, H, D)."""
    q, k, v = q.reshape(heads), k.reshape(heads), v.reshape(heads)
    scores = np.einsum("bihd,bjhd->bhij", q, k) / q.shape[3] ** 0.5  # (B, H, T, T)
    probs = softmax(scores + np.triu(np.full(scores.shape[2:], -np.inf), k=1))  # −∞ where j > i
    acts[name] = q, k, v, probs
    return np.einsum("bhij,bjhd->bihd", probs, v).reshape(heads[0] * heads[1], -1)  # (N, C)


def attention_backward(dy, name, acts):
    q, k, v, probs = acts[name]
    d = dy.reshape(q.shape)  # (B, T, H, D)
    # y_i = Σ_j probs_ij v_j
    dv, dprobs = np.einsum("bhij,bihd->bjhd", probs, d), np.einsum("bihd,bjhd->bhij", d, v)
    # probs = softmax(scores): ∂p_j/∂s_i = p_j (δ_ij − p_i) in each row
    dscores = probs * (dprobs - (dprobs * probs).sum(axis=-1, keepdims=True)) / q.shape[3] ** 0.5
    # scores_ij = q_i · k_j / √D
    dq, dk = np.einsum("bhij,bjhd->bihd", dscores, k), np.einsum("bhij,bihd->bjhd", dscores, q)
    return dq.reshape(dy.shape), dk.reshape(dy.shape), dv.reshape(dy.shape)


def forward(params, ids, n_layers, n_heads, s):
    """Logits (N, V) of the next token after each of ids (B, T), and the saved activations."""
    acts, heads = {}, (*ids.shape, n_heads, -1)
    x = (params["tok_emb.weight"][ids] + params["pos_emb.weight"]).reshape(ids.size, -1)  # (N, C)
    for block in [f"blocks.{i}" for i in range(n_layers)]:
        h = layer_norm_forward(x, f"{block}.ln1", params, acts)
        q, k, v = (linear_forward(h, f"{block}.attn.{y}_proj", params, s, acts) for y in "qkv")
        h = attention_forward(q, k, v, heads, f"{block}.attn", acts)
        x = x + linear_forward(h, f"{block}.attn.o_proj", params, s, acts)
        h = layer_norm_forward(x, f"{block}.ln2", params, acts)
        h, acts[f"{block}.slope"] = gelu(linear_forward(h, f"{block}.mlp.up_proj", params, s, acts))
        x = x + linear_forward(h, f"{block}.mlp.down_proj", params, s, acts)
    acts["h"] = layer_norm_forward(x, "ln_f", params, acts)
    return acts["h"] @ params["tok_emb.weight"].T, acts  # the token embedding E is also the head


def loss_and_gradients(params, ids, targets, trained, n_layers, n_heads, s):
    """The mean of −log p(target) over the N tokens, and its gradients for the names in `trained`."""
    logits, acts = forward(params, ids, n_layers, n_heads, s)
    probs, onehot = softmax(logits), np.eye(logits.shape[1])[targets.ravel()]  # (N, V)
    loss, dlogits = -np.log((probs * onehot).sum(axis=1)).mean(), (probs - onehot) / targets.size
    grads = dict.fromkeys(trained, 0.0)
    # logits = ln_f(x) Eᵀ
    dx = layer_norm_backward(dlogits @ params["tok_emb.weight"], "ln_f", params, acts, grads)
    for block in [f"blocks.{i}" for i in reversed(range(n_layers))]:
        # x = x + down_proj(gelu(up_proj(ln2(x)))): dx passes unchanged, and through the branch
        d = linear_backward(dx, f"{block}.mlp.down_proj", params, s, acts, grads)  # (N, F)
        d = linear_backward(d * acts[f"{block}.slope"], f"{block}.mlp.up_proj", params, s, acts, grads)
        dx = dx + layer_norm_backward(d, f"{block}.ln2", params, acts, grads)
        # x = x + o_proj(attention(q_proj(h), k_proj(h), v_proj(h))) with h = ln1(x)
        d = linear_backward(dx, f"{block}.attn.o_proj", params, s, acts, grads)
        dqkv = zip("qkv", attention_backward(d, f"{block}.attn", acts))
        d = sum(linear_backward(d, f"{block}.attn.{y}_proj", params, s, acts, grads) for y, d in dqkv)
        dx = dx + layer_norm_backward(d, f"{block}.ln1", params, acts, grads)
    if "tok_emb.weight" in grads:
        grads["tok_emb.weight"] += dlogits.T @ acts["h"]  # (V, C), from E's use as the head
        np.add.at(grads["tok_emb.weight"], ids.ravel(), dx)  # from E[ids]: a sum over each row's uses
        grads["pos_emb.weight"] += dx.reshape(*ids.shape, -1).sum(axis=0)  # (T, C)
    return loss, grads


def adamw(params, grads, m, v, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, decay=0.01):
    """Update the arrays that have gradients, at step t ≥ 1. m averages the gradient, v its square."""
    params, m, v = dict(params), dict(m), dict(v)
    for name, g in grads.items():
        m[name] = beta1 * m[name] + (1 - beta1) * g
        v[name] = beta2 * v[name] + (1 - beta2) * g**2
        m_hat, v_hat = m[name] / (1 - beta1**t), v[name] / (1 - beta2**t)  # both started at 0
        shrink = 1 - lr * decay if g.ndim == 2 else 1  # weight decay, only on matrices
        params[name] = shrink * params[name] - lr * m_hat / (np.sqrt(v_hat) + eps)
    return params, m, v


def train(params, trained, ids, targets, config, steps, lr):
    """The parameters after `steps` steps on the whole text, and the loss before each step."""
    losses, m, v = [], dict.fromkeys(trained, 0.0), dict.fromkeys(trained, 0.0)
    for t in range(1, steps + 1):
        loss, grads = loss_and_gradients(params, ids, targets, trained, *config)
        params, m, v = adamw(params, grads, m, v, t, lr)
        losses.append(loss)
    return params, losses


def main(steps=101):
    """Train a base on FIRST, then adapt it to SECOND, with full fine-tuning and with LoRA."""
    rng, letters, T, r = np.random.default_rng(0), sorted(set(FIRST + SECOND)), 17, 4
    config = (2, 4, 16 / r)  # n_layers, n_heads, s = alpha / r
    texts = [np.array([letters.index(c) for c in text]) for text in (FIRST, SECOND)]
    first, second = [(text[:-1].reshape(-1, T), text[1:].reshape(-1, T)) for text in texts]  # (B, T)
    base = init_params(len(letters), T, 32, 128, config[0], rng)
    base, base_losses = train(base, base, *first, config, steps, lr=3e-3)
    adapter = init_lora(base, r, rng)
    full, full_losses = train(base, base, *second, config, steps, lr=3e-3)
    lora, lora_losses = train(base | adapter, adapter, *second, config, steps, lr=1e-2)
    share = sum(a.size for a in adapter.values()) / sum(a.size for a in base.values())
    print(f"LoRA trains {share:.1%} of the parameters. Loss on SECOND:\nstep    full    LoRA")
    for t in range(0, steps, 10):
        print(f"{t:4}  {full_losses[t]:6.3f}  {lora_losses[t]:6.3f}")
    after = [loss_and_gradients(params, *first, (), *config)[0] for params in (base, full, lora)]
    print("Loss on FIRST: base {:.3f}, afterwards full {:.3f}, LoRA {:.3f}".format(*after))
    return base_losses, full_losses, lora_losses, share


if __name__ == "__main__":
    main()
