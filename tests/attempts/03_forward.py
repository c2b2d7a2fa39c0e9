"""Attempts at exercise set 03. Each begins with `# ==`, the item, and what it is: right; or wrong, and after it words
of the diagnosis that it has to get."""

# == embed: right, place by place
def embed(ids, tok_emb, pos_emb):
    B, T = ids.shape
    x = np.empty((B, T, tok_emb.shape[1]))
    for b in range(B):
        for t in range(T):
            x[b, t] = tok_emb[ids[b, t]] + pos_emb[t]
    return x


# == embed: right, with one-hot rows
def embed(ids, tok_emb, pos_emb):
    what = np.eye(len(tok_emb))[ids] @ tok_emb
    where = np.eye(len(pos_emb))[np.arange(ids.shape[1])] @ pos_emb
    return what + where[None]


# == embed: right, in place on its own copy
def embed(ids, tok_emb, pos_emb):
    x = np.take(tok_emb, ids, axis=0)
    x += np.broadcast_to(pos_emb[None, : x.shape[1]], x.shape)
    return [x][0]


# == embed: wrong, the positions are missing
def embed(ids, tok_emb, pos_emb):
    return tok_emb[ids]


# == embed: wrong, looked up by the token's id
def embed(ids, tok_emb, pos_emb):
    return tok_emb[ids] + pos_emb[ids]


# == embed: wrong, the positions begin at 1
def embed(ids, tok_emb, pos_emb):
    x = tok_emb[ids]
    for t in range(ids.shape[1]):
        x[:, t] += pos_emb[t + 1]
    return x


# == embed: wrong, the last T rows
def embed(ids, tok_emb, pos_emb):
    return tok_emb[ids] + pos_emb[len(pos_emb) - ids.shape[1] :]


# == embed: wrong, go on counting from one text to the next
def embed(ids, tok_emb, pos_emb):
    x = tok_emb[ids.ravel()]
    position = np.arange(len(x)) % len(pos_emb)
    return (x + pos_emb[position]).reshape(*ids.shape, -1)


# == embed: wrong, multiplied, not added
def embed(ids, tok_emb, pos_emb):
    return tok_emb[ids] * pos_emb[np.arange(ids.shape[1])]


# == embed: wrong, multiplied by √C
def embed(ids, tok_emb, pos_emb):
    return np.sqrt(tok_emb.shape[1]) * tok_emb[ids] + pos_emb[: ids.shape[1]]


# == embed: wrong, it raises ValueError: operands could not be broadcast
def embed(ids, tok_emb, pos_emb):
    return tok_emb[ids] + pos_emb


# == layer_norm: right, with NumPy's own mean and variance
def layer_norm(x, w, b, eps):
    mean, variance = x.mean(axis=2)[:, :, None], np.var(x, axis=2)[:, :, None]
    return w / np.sqrt(variance + eps) * (x - mean) + b


# == layer_norm: right, position by position
def layer_norm(x, w, b, eps):
    y = np.zeros(x.shape)
    for place in np.ndindex(x.shape[:2]):
        row = x[place]
        variance = (row @ row) / len(row) - row.mean() ** 2
        y[place] = (row - row.mean()) * (variance + eps) ** -0.5 * w + b
    return y


# == layer_norm: right, as a product with a centring matrix, in place
def layer_norm(x, w, b, eps):
    C = x.shape[-1]
    y = x @ (np.eye(C) - 1 / C)
    y /= np.sqrt(np.einsum("btc,btc->bt", y, y)[..., None] / C + eps)
    y *= w
    y += b
    return y


# == layer_norm: wrong, ε is added to the standard deviation
def layer_norm(x, w, b, eps):
    return (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + eps) * w + b


# == layer_norm: wrong, divided by C − 1
def layer_norm(x, w, b, eps):
    variance = x.var(axis=-1, keepdims=True, ddof=1)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(variance + eps) * w + b


# == layer_norm: wrong, divided by the variance
def layer_norm(x, w, b, eps):
    return (x - x.mean(-1, keepdims=True)) / (x.var(-1, keepdims=True) + eps) * w + b


# == layer_norm: wrong, along the positions
def layer_norm(x, w, b, eps):
    return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + eps) * w + b


# == layer_norm: wrong, those of the whole array
def layer_norm(x, w, b, eps):
    return (x - x.mean()) / np.sqrt(x.var() + eps) * w + b


# == layer_norm: wrong, b is added before w
def layer_norm(x, w, b, eps):
    return w * ((x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) + b)


# == layer_norm: wrong, the RMS norm
def layer_norm(x, w, b, eps):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * w + b


# == layer_norm: wrong, ε is missing
def layer_norm(x, w, b, eps):
    return (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True) * w + b


# == layer_norm: wrong, it changes its argument x
def layer_norm(x, w, b, eps):
    x -= x.mean(axis=-1, keepdims=True)
    x /= np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    return x * w + b


# == split_heads: right, columns cut out head by head
def split_heads(x, H):
    B, T, C = x.shape
    D = C // H
    x_heads = np.zeros((B, H, T, D))
    for n in range(H):
        x_heads[:, n] = x[:, :, n * D : (n + 1) * D]
    return x_heads


# == split_heads: right, by np.split
def split_heads(x, H):
    return np.stack(np.split(x, H, axis=-1), axis=1)


# == split_heads: right, columns first
def split_heads(x, H):
    B, T, C = x.shape
    columns = np.swapaxes(x, 1, 2).reshape(B, H, C // H, T)
    return np.moveaxis(columns, 3, 2)


# == split_heads: wrong, this is reshape alone
def split_heads(x, H):
    B, T, C = x.shape
    return x.reshape(B, H, T, C // H)


# == split_heads: wrong, every H-th column
def split_heads(x, H):
    return np.stack([x[:, :, n::H] for n in range(H)], axis=1)


# == split_heads: wrong, exchanged before the reshape
def split_heads(x, H):
    B, T, C = x.shape
    return x.transpose(0, 2, 1).reshape(B, H, T, C // H)


# == split_heads: wrong, the columns of the first one
def split_heads(x, H):
    D = x.shape[-1] // H
    return np.stack([x[..., 0:D] for n in range(H)], axis=1)


# == split_heads: wrong, it has shape
def split_heads(x, H):
    B, T, C = x.shape
    return x.reshape(B, T, H, C // H)


# == causal_scores: right, by loops over what may be seen
def causal_scores(q, k):
    B, H, T, D = q.shape
    scores = np.full((B, H, T, T), -np.inf)
    for i in range(T):
        for j in range(i + 1):
            scores[:, :, i, j] = (q[:, :, i] * k[:, :, j]).sum(axis=-1) / D**0.5
    return scores


# == causal_scores: right, by einsum and with an index
def causal_scores(q, k):
    scores = np.einsum("bhid,bhjd->bhij", q / q.shape[-1] ** 0.25, k / q.shape[-1] ** 0.25)
    later = np.triu_indices(q.shape[2], k=1)
    scores[:, :, later[0], later[1]] = -np.inf
    return scores


# == causal_scores: right, with a mask that is added
def causal_scores(q, k):
    T = q.shape[-2]
    mask = np.zeros((T, T))
    mask[np.arange(T)[:, None] < np.arange(T)] = float("-inf")
    return np.matmul(q, k.transpose(0, 1, 3, 2)) * q.shape[-1] ** -0.5 + mask


# == causal_scores: wrong, times √D
def causal_scores(q, k):
    scores = q @ k.swapaxes(-1, -2)
    return np.where(np.tri(q.shape[2], dtype=bool), scores, -np.inf)


# == causal_scores: wrong, divided by D, not by its root
def causal_scores(q, k):
    scores = q @ k.swapaxes(-1, -2) / q.shape[-1]
    return np.where(np.tri(q.shape[2], dtype=bool), scores, -np.inf)


# == causal_scores: wrong, it has √C for √D
def causal_scores(q, k):
    C = q.shape[1] * q.shape[3]
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(C)
    return np.where(np.tri(q.shape[2], dtype=bool), scores, -np.inf)


# == causal_scores: wrong, by √T, not by √D
def causal_scores(q, k):
    T = q.shape[2]
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(T)
    return np.where(np.tri(T, dtype=bool), scores, -np.inf)


# == causal_scores: wrong, negative ones become +∞
def causal_scores(q, k):
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    scores[..., np.triu(np.ones(scores.shape[-2:], dtype=bool), 1)] *= -np.inf
    return scores


# == causal_scores: wrong, there is none: queries see the keys after them
def causal_scores(q, k):
    return q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])


# == causal_scores: wrong, each query's own position is hidden
def causal_scores(q, k):
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    hidden = np.triu(np.ones(scores.shape[-2:], dtype=bool))
    return np.where(hidden, -np.inf, scores)


# == causal_scores: wrong, still sees the one key after it
def causal_scores(q, k):
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    return np.where(np.triu(np.ones(scores.shape[-2:]), k=2) == 1, -np.inf, scores)


# == causal_scores: wrong, it is the wrong way round
def causal_scores(q, k):
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    scores[:, :, np.tril(np.ones(scores.shape[-2:], dtype=bool), -1)] = -np.inf
    return scores


# == causal_scores: wrong, exp(0) is not 0
def causal_scores(q, k):
    return np.tril(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))


# == causal_scores: wrong, a negative number stands where −∞ belongs
def causal_scores(q, k):
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    return scores - 1e9 * np.triu(np.ones(scores.shape[-2:]), 1)


# == causal_scores: wrong, 0 · ∞ is no number
def causal_scores(q, k):
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    return scores + np.triu(np.ones(scores.shape[-2:]), 1) * -np.inf


# == causal_scores: wrong, they are transposed
def causal_scores(q, k):
    scores = k @ q.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    return np.where(np.tri(q.shape[2], dtype=bool), scores, -np.inf)


# == causal_scores: wrong, gone through the softmax already
def causal_scores(q, k):
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    e = np.exp(scores) * np.tri(q.shape[2])
    return e / e.sum(axis=-1, keepdims=True)


# == attend: right, by einsum
def attend(probs, v):
    B, H, T, D = v.shape
    return np.einsum("bhij,bhjd->bihd", probs, v).reshape(B, T, H * D)


# == attend: right, head by head into columns
def attend(probs, v):
    B, H, T, D = v.shape
    context = np.zeros((B, T, H * D))
    for b in range(B):
        for n in range(H):
            context[b, :, n * D : (n + 1) * D] = probs[b, n].dot(v[b, n])
    return context


# == attend: right, side by side with concatenate
def attend(probs, v):
    averages = (probs[..., None] * v[:, :, None]).sum(axis=3)
    return np.concatenate([averages[:, n] for n in range(v.shape[1])], axis=-1)


# == attend: wrong, this is reshape alone
def attend(probs, v):
    B, H, T, D = v.shape
    return (probs @ v).reshape(B, T, H * D)


# == attend: wrong, every H-th column
def attend(probs, v):
    B, H, T, D = v.shape
    return np.einsum("bhij,bhjd->bidh", probs, v).reshape(B, T, D * H)


# == attend: wrong, keys and queries are exchanged
def attend(probs, v):
    B, H, T, D = v.shape
    return (probs.swapaxes(2, 3) @ v).transpose(0, 2, 1, 3).reshape(B, T, H * D)


# == attend: wrong, each position has its own value
def attend(probs, v):
    B, H, T, D = v.shape
    return (probs.sum(axis=-1, keepdims=True) * v).transpose(0, 2, 1, 3).reshape(B, T, H * D)


# == attend: wrong, the largest share alone
def attend(probs, v):
    B, H, T, D = v.shape
    hard = np.eye(T)[probs.argmax(axis=-1)]
    return (hard @ v).transpose(0, 2, 1, 3).reshape(B, T, H * D)


# == attend: wrong, a softmax once more
def attend(probs, v):
    B, H, T, D = v.shape
    e = np.exp(probs)
    probs = e / e.sum(axis=-1, keepdims=True)
    return (probs @ v).transpose(0, 2, 1, 3).reshape(B, T, H * D)


# == attend: wrong, divided by H
def attend(probs, v):
    B, H, T, D = v.shape
    return (probs / H @ v).transpose(0, 2, 1, 3).reshape(B, T, H * D)


# == attend: wrong, it has shape
def attend(probs, v):
    return (probs @ v).mean(axis=1)


# == block: right, in one expression for each half
def block(x, part):
    branch = part["attention"](*[part[f"{n}_proj"](part["ln1"](x)) for n in "qkv"])
    middle = part["o_proj"](branch) + x
    mlp = middle
    for name in ("ln2", "up_proj", "gelu", "down_proj"):
        mlp = part[name](mlp)
    return (middle + mlp,)


# == block: right, added up in place on a copy
def block(x, part):
    stream = x.copy()
    h = part["ln1"](stream)
    v, k, q = part["v_proj"](h), part["k_proj"](h), part["q_proj"](h)
    stream += part["o_proj"](part["attention"](q=q, k=k, v=v))
    stream += part["down_proj"](part["gelu"](part["up_proj"](part["ln2"](stream))))
    return {"y": stream}


# == block: wrong, both ways around are missing
def block(x, part):
    h = part["ln1"](x)
    x = part["o_proj"](part["attention"](part["q_proj"](h), part["k_proj"](h), part["v_proj"](h)))
    return part["down_proj"](part["gelu"](part["up_proj"](part["ln2"](x))))


# == block: wrong, the way around the MLP is missing
def block(x, part):
    h = part["ln1"](x)
    x = x + part["o_proj"](part["attention"](part["q_proj"](h), part["k_proj"](h), part["v_proj"](h)))
    x = part["ln2"](x)
    x = part["gelu"](part["up_proj"](x))
    return part["down_proj"](x)


# == block: wrong, begins at x, before attention
def block(x, part):
    h = part["ln1"](x)
    a = x + part["o_proj"](part["attention"](part["q_proj"](h), part["k_proj"](h), part["v_proj"](h)))
    return x + part["down_proj"](part["gelu"](part["up_proj"](part["ln2"](a))))


# == block: wrong, the MLP reads x
def block(x, part):
    h = part["ln1"](x)
    attention = part["o_proj"](part["attention"](part["q_proj"](h), part["k_proj"](h), part["v_proj"](h)))
    mlp = part["down_proj"](part["gelu"](part["up_proj"](part["ln2"](x))))
    return x + attention + mlp


# == block: wrong, each layer norm stands after its sum
def block(x, part):
    a = part["o_proj"](part["attention"](part["q_proj"](x), part["k_proj"](x), part["v_proj"](x)))
    x = part["ln1"](x + a)
    return part["ln2"](x + part["down_proj"](part["gelu"](part["up_proj"](x))))


# == block: wrong, begin behind the layer norms
def block(x, part):
    x = part["ln1"](x)
    x = x + part["o_proj"](part["attention"](part["q_proj"](x), part["k_proj"](x), part["v_proj"](x)))
    x = part["ln2"](x)
    return x + part["down_proj"](part["gelu"](part["up_proj"](x)))


# == block: wrong, the way around the MLP begins behind ln2
def block(x, part):
    h = part["ln1"](x)
    x = x + part["o_proj"](part["attention"](part["q_proj"](h), part["k_proj"](h), part["v_proj"](h)))
    x = part["ln2"](x)
    return x + part["down_proj"](part["gelu"](part["up_proj"](x)))


# == block: wrong, one way leads around both halves
def block(x, part):
    h = part["ln1"](x)
    a = part["o_proj"](part["attention"](part["q_proj"](h), part["k_proj"](h), part["v_proj"](h)))
    return x + part["down_proj"](part["gelu"](part["up_proj"](part["ln2"](a))))


# == block: wrong, o_proj is missing
def block(x, part):
    h = part["ln1"](x)
    x = x + part["attention"](part["q_proj"](h), part["k_proj"](h), part["v_proj"](h))
    return x + part["down_proj"](part["gelu"](part["up_proj"](part["ln2"](x))))


# == block: wrong, k and v are exchanged
def block(x, part):
    h = part["ln1"](x)
    x = x + part["o_proj"](part["attention"](part["q_proj"](h), part["v_proj"](h), part["k_proj"](h)))
    return x + part["down_proj"](part["gelu"](part["up_proj"](part["ln2"](x))))


# == block: wrong, gelu is missing
def block(x, part):
    h = part["ln1"](x)
    x = x + part["o_proj"](part["attention"](part["q_proj"](h), part["k_proj"](h), part["v_proj"](h)))
    return x + part["down_proj"](part["up_proj"](part["ln2"](x)))


# == block: wrong, ln2 is missing
def block(x, part):
    h = part["ln1"](x)
    x = x + part["o_proj"](part["attention"](part["q_proj"](h), part["k_proj"](h), part["v_proj"](h)))
    return x + part["down_proj"](part["gelu"](part["up_proj"](x)))


# == block: wrong, it raises KeyError
def block(x, part):
    h = part["ln_1"](x)
    return x + part["o_proj"](part["attention"](part["q_proj"](h), part["k_proj"](h), part["v_proj"](h)))


# == perplexity: right, by logaddexp
def perplexity(logits, targets):
    log_sum = np.logaddexp.reduce(logits, axis=-1)
    picked = logits[np.arange(len(logits))[:, None], np.arange(logits.shape[1]), targets]
    return np.exp(np.mean(log_sum - picked))


# == perplexity: right, token by token with the target's logit taken off
def perplexity(logits, targets):
    surprise = []
    for row, target in zip(logits.reshape(-1, logits.shape[-1]), targets.ravel()):
        gaps = row - row[target]
        top = gaps.max()
        surprise.append(top + np.log(sum(np.exp(gap - top) for gap in gaps)))
    return float(np.exp(sum(surprise) / len(surprise)))


# == perplexity: right, as a geometric mean
def perplexity(logits, targets):
    x = logits - logits.max(axis=-1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    log_p = log_p[np.eye(logits.shape[-1], dtype=bool)[targets]]
    return np.prod(np.exp(-log_p / log_p.size))


# == perplexity: wrong, not finite (NaN or infinity)
def perplexity(logits, targets):
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    p_t = np.take_along_axis(p, targets[..., None], axis=-1)
    return np.exp(-np.log(p_t).mean())


# == perplexity: wrong, not finite (NaN or infinity)
def perplexity(logits, targets):
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p = p / p.sum(axis=-1, keepdims=True)
    p_t = np.take_along_axis(p, targets[..., None], axis=-1)
    return np.exp(np.mean(-np.log(p_t)))


# == perplexity: wrong, the largest surprise is made small
def perplexity(logits, targets):
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p = p / p.sum(axis=-1, keepdims=True)
    p_t = np.take_along_axis(p, targets[..., None], axis=-1)
    return np.exp(np.mean(-np.log(p_t + 1e-12)))


# == perplexity: wrong, this is the loss: exp is missing
def perplexity(logits, targets):
    x = logits - logits.max(axis=-1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return -np.take_along_axis(log_p, targets[..., None], axis=-1).mean()


# == perplexity: wrong, a sign is reversed
def perplexity(logits, targets):
    x = logits - logits.max(axis=-1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return np.exp(np.take_along_axis(log_p, targets[..., None], axis=-1).mean())


# == perplexity: wrong, 2 to the power of a loss in nats
def perplexity(logits, targets):
    x = logits - logits.max(axis=-1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return 2 ** -np.take_along_axis(log_p, targets[..., None], axis=-1).mean()


# == perplexity: wrong, of each text is averaged
def perplexity(logits, targets):
    x = logits - logits.max(axis=-1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    log_p = np.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    return np.mean([np.exp(-text.mean()) for text in log_p])


# == perplexity: wrong, the probabilities are averaged
def perplexity(logits, targets):
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p = p / p.sum(axis=-1, keepdims=True)
    return 1 / np.take_along_axis(p, targets[..., None], axis=-1).mean()


# == perplexity: wrong, moved by one place
def perplexity(logits, targets):
    logits, targets = logits[:, :-1], targets[:, 1:]
    x = logits - logits.max(axis=-1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return np.exp(-np.take_along_axis(log_p, targets[..., None], axis=-1).mean())


# == perplexity: wrong, at all places' targets
def perplexity(logits, targets):
    x = logits - logits.max(axis=-1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return np.exp(-log_p[:, :, targets].mean())


# == perplexity: wrong, along the positions
def perplexity(logits, targets):
    x = logits - logits.max(axis=1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    return np.exp(-np.take_along_axis(log_p, targets[..., None], axis=-1).mean())


# == who_reads_whom: right, all exchanges as one large batch
def who_reads_whom(model, ids, V):
    B, T = ids.shape
    many = np.repeat(ids[None], T, axis=0)  # (T, B, T)
    for j in range(T):
        many[j, :, j] = V - 1 - many[j, :, j]
        many[j, many[j, :, j] == ids[:, j], j] += 1
    found = model(many.reshape(T * B, T)).reshape(T, B, T, -1)
    return (found != model(ids)).any(axis=(1, 3)).T


# == who_reads_whom: right, with every other token tried, in one text
def who_reads_whom(model, ids, V):
    text = ids[:1]
    T = text.shape[1]
    reads = [[0] * T for _ in range(T)]
    before = model(text)
    for j in range(T):
        for token in range(V):
            changed = text.copy()
            changed[0, j] = token
            after = model(changed)
            for i in range(T):
                if not np.array_equal(before[0, i], after[0, i]):
                    reads[i][j] = 1
    return np.array(reads)


# == who_reads_whom: right, with a change that is undone
def who_reads_whom(model, ids, V):
    ids = np.array(ids)
    reads = np.zeros(2 * ids.shape[1:], dtype=float)
    before = model(ids)
    for j in range(ids.shape[1]):
        ids[:, j] = (ids[:, j] - 1) % V
        reads[:, j] = np.abs(model(ids) - before).max(axis=(0, 2)) > 0
        ids[:, j] = (ids[:, j] + 1) % V
    return reads


# == who_reads_whom: wrong, what a causal model should do
def who_reads_whom(model, ids, V):
    return np.tri(ids.shape[1]) == 1


# == who_reads_whom: wrong, compare bit for bit
def who_reads_whom(model, ids, V):
    T = ids.shape[1]
    reads = np.zeros((T, T), dtype=bool)
    for j in range(T):
        changed = ids.copy()
        changed[:, j] = (ids[:, j] + 1) % V
        same = np.isclose(model(changed), model(ids))
        reads[:, j] = ~same.all(axis=(0, 2))
    return reads


# == who_reads_whom: wrong, where token 0 stood already
def who_reads_whom(model, ids, V):
    T = ids.shape[1]
    reads = np.zeros((T, T), dtype=bool)
    for j in range(T):
        changed = ids.copy()
        changed[:, j] = 0
        reads[:, j] = (model(changed) != model(ids)).any(axis=(0, 2))
    return reads


# == who_reads_whom: wrong, the last token stood already
def who_reads_whom(model, ids, V):
    T = ids.shape[1]
    reads = np.zeros((T, T), dtype=bool)
    for j in range(T):
        changed = ids.copy()
        changed[:, j] = V - 1
        reads[:, j] = (model(changed) != model(ids)).any(axis=(0, 2))
    return reads


# == who_reads_whom: wrong, put each one back
def who_reads_whom(model, ids, V):
    T = ids.shape[1]
    reads, before, changed = np.zeros((T, T), dtype=bool), model(ids), ids.copy()
    for j in range(T):
        changed[:, j] = (ids[:, j] + 1) % V
        reads[:, j] = (model(changed) != before).any(axis=(0, 2))
    return reads


# == who_reads_whom: wrong, the tokens after j
def who_reads_whom(model, ids, V):
    T = ids.shape[1]
    reads = np.zeros((T, T), dtype=bool)
    for j in range(T):
        changed = ids.copy()
        changed[:, j:] = (ids[:, j:] + 1) % V
        reads[:, j] = (model(changed) != model(ids)).any(axis=(0, 2))
    return reads


# == who_reads_whom: wrong, rows and columns are exchanged
def who_reads_whom(model, ids, V):
    reads = []
    for j in range(ids.shape[1]):
        changed = ids.copy()
        changed[:, j] = (ids[:, j] + 1) % V
        reads.append((model(changed) != model(ids)).any(axis=(0, 2)))
    return np.array(reads)


# == who_reads_whom: wrong, True stands where nothing changes
def who_reads_whom(model, ids, V):
    reads = []
    for j in range(ids.shape[1]):
        changed = ids.copy()
        changed[:, j] = (ids[:, j] + 1) % V
        reads.append((model(changed) == model(ids)).all(axis=(0, 2)))
    return np.stack(reads, axis=1)


# == who_reads_whom: wrong, it changes its argument ids
def who_reads_whom(model, ids, V):
    T = ids.shape[1]
    reads, before = np.zeros((T, T), dtype=bool), model(ids)
    for j in range(T):
        ids[:, j] = (ids[:, j] + 1) % V
        reads[:, j] = (model(ids) != before).any(axis=(0, 2))
    return reads
