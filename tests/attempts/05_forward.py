"""Attempts at exercise set 05: `# ==`, the exercise, and right; or wrong, and words of the diagnosis."""
# == embed: right, place by place
def embed(ids, tok_emb, pos_emb):
    B, T = ids.shape
    x = np.empty((B, T, tok_emb.shape[1]))
    for b in range(B):
        for t in range(T):
            x[b, t] = tok_emb[ids[b, t]] + pos_emb[t]
    return x

# == embed: wrong, x lacks the term pos_emb[:T]
def embed(ids, tok_emb, pos_emb):
    return tok_emb[ids]

# == layer_norm: right, with NumPy's own mean and variance
def layer_norm(x, w, b, eps):
    mean, variance = x.mean(axis=2)[:, :, None], np.var(x, axis=2)[:, :, None]
    return w / np.sqrt(variance + eps) * (x - mean) + b

# == layer_norm: wrong, an intermediate result has + eps outside of sqrt
def layer_norm(x, w, b, eps):
    return (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + eps) * w + b

# == split_heads: right, by np.split
def split_heads(x, H):
    return np.stack(np.split(x, H, axis=-1), axis=1)

# == split_heads: wrong, x_heads has x.reshape(N, T, H, C // H) reshaped instead of transposed
def split_heads(x, H):
    B, T, C = x.shape
    return x.reshape(B, H, T, C // H)

# == causal_scores: right, by einsum and with an index
def causal_scores(q, k):
    scores = np.einsum("bhid,bhjd->bhij", q / q.shape[-1] ** 0.25, k / q.shape[-1] ** 0.25)
    later = np.triu_indices(q.shape[2], k=1)
    scores[:, :, later[0], later[1]] = -np.inf
    return scores

# == causal_scores: wrong, scores is not masked by np.tril(np.ones((T, T), dtype=bool))
def causal_scores(q, k):
    return q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])

# == attend: right, by einsum
def attend(probs, v):
    B, H, T, D = v.shape
    return np.einsum("bhij,bhjd->bihd", probs, v).reshape(B, T, H * D)

# == attend: wrong, context has O not transposed
def attend(probs, v):
    B, H, T, D = v.shape
    return (probs @ v).reshape(B, T, H * D)

# == block: right, in one expression for each half
def block(x, part):
    branch = part["attention"](*[part[f"{n}_proj"](part["ln1"](x)) for n in "qkv"])
    middle = part["o_proj"](branch) + x
    mlp = middle
    for name in ("ln2", "up_proj", "gelu", "down_proj"):
        mlp = part[name](mlp)
    return (middle + mlp,)

# == block: wrong, middle lacks the term x, and y lacks the term middle
def block(x, part):
    h = part["ln1"](x)
    x = part["o_proj"](part["attention"](part["q_proj"](h), part["k_proj"](h), part["v_proj"](h)))
    return part["down_proj"](part["gelu"](part["up_proj"](part["ln2"](x))))

# == perplexity: right, by logaddexp
def perplexity(logits, targets):
    log_sum = np.logaddexp.reduce(logits, axis=-1)
    picked = logits[np.arange(len(logits))[:, None], np.arange(logits.shape[1]), targets]
    return np.exp(np.mean(log_sum - picked))

# == perplexity: wrong, perplexity skips exp(surprise.mean())
def perplexity(logits, targets):
    x = logits - logits.max(axis=-1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return -np.take_along_axis(log_p, targets[..., None], axis=-1).mean()

# == who_reads_whom: right, all exchanges as one large batch
def who_reads_whom(model, ids, V):
    B, T = ids.shape
    many = np.repeat(ids[None], T, axis=0)  # (T, B, T)
    for j in range(T):
        many[j, :, j] = V - 1 - many[j, :, j]
        many[j, many[j, :, j] == ids[:, j], j] += 1
    found = model(many.reshape(T * B, T)).reshape(T, B, T, -1)
    return (found != model(ids)).any(axis=(1, 3)).T

# == who_reads_whom: wrong, the tokens before j are replaced as well
def who_reads_whom(model, ids, V):
    T = ids.shape[1]
    reads, before, changed = np.zeros((T, T), dtype=bool), model(ids), ids.copy()
    for j in range(T):
        changed[:, j] = (ids[:, j] + 1) % V
        reads[:, j] = (model(changed) != before).any(axis=(0, 2))
    return reads

# == perplexity: wrong, an intermediate result lacks axis=-1 in max
def perplexity(logits, targets):
    x = logits - logits.max()
    return np.exp(np.mean(np.log(np.exp(x).sum(-1)) - np.take_along_axis(x, targets[..., None], -1)[..., 0]))
