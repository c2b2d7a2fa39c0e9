"""Attempts at exercise set 06: `# ==`, the exercise, and right; or wrong, and words of the diagnosis."""
# == residual_backward: right, as a list of ways
def residual_backward(dy, branch_backward):
    ways = [lambda d: d, branch_backward]
    return np.stack([way(dy) for way in ways]).sum(axis=0)

# == residual_backward: wrong, dx lacks the term dy
def residual_backward(dy, branch_backward):
    return branch_backward(dy)

# == predicted_drop: right, by norms of norms
def predicted_drop(grads, lr):
    norms = [np.linalg.norm(g) for g in grads.values()]
    return lr * np.linalg.norm(norms) ** 2

# == predicted_drop: wrong, drop lacks the factor lr
def predicted_drop(grads, lr):
    return sum((g**2).sum() for g in grads.values())

# == embedding_backward: right, token by token
def embedding_backward(dy, ids, V):
    return np.array([dy[ids == token].sum(axis=0) for token in range(V)])

# == embedding_backward: wrong, it is the correct value divided by B · T
def embedding_backward(dy, ids, V):
    dtable = np.zeros((V, dy.shape[-1]))
    np.add.at(dtable, ids, dy / ids.size)
    return dtable

# == attend_backward: right, by einsum
def attend_backward(dcontext, probs, v):
    B, H, T, D = v.shape
    d = dcontext.reshape(B, T, H, D)
    return np.einsum("bihd,bhjd->bhij", d, v), np.einsum("bhij,bihd->bhjd", probs, d)

# == attend_backward: wrong, dO has dcontext.reshape(N, T, H, D) reshaped instead of transposed
def attend_backward(dcontext, probs, v):
    d = dcontext.reshape(v.shape)
    return d @ v.transpose(0, 1, 3, 2), probs.transpose(0, 1, 3, 2) @ d

# == scores_backward: right, row by row with the matrix of derivatives
def scores_backward(dprobs, probs):
    dscores = np.zeros_like(probs)
    for place in np.ndindex(probs.shape[:3]):
        p = probs[place]
        dscores[place] = (np.diag(p) - np.outer(p, p)) @ dprobs[place]
    return dscores

# == scores_backward: wrong, dscores lacks the term np.sum(dprobs * probs
def scores_backward(dprobs, probs):
    return probs * dprobs

# == query_key_backward: right, by einsum
def query_key_backward(dscores, q, k):
    root = q.shape[-1] ** 0.5
    return np.einsum("bhij,bhjd->bhid", dscores, k) / root, np.einsum("bhij,bhid->bhjd", dscores, q) / root

# == query_key_backward: wrong, dq lacks the factor (1 / np.sqrt(D))
def query_key_backward(dscores, q, k):
    return dscores @ k, dscores.swapaxes(-1, -2) @ q / np.sqrt(q.shape[-1])

# == three_ways_backward: right, as one layer of three times the width
def three_ways_backward(dq, dk, dv, Wq, Wk, Wv):
    return np.concatenate([dq, dk, dv], axis=-1) @ np.concatenate([Wq, Wk, Wv], axis=0)

# == three_ways_backward: wrong, dh lacks the term dv @ Wv
def three_ways_backward(dq, dk, dv, Wq, Wk, Wv):
    return dq @ Wq + dk @ Wk

# == attention_half_backward: right, ln1 in three parts
def attention_half_backward(dy, back):
    dx = dy.copy()
    for name, d in zip("qkv", back["attention"](back["o_proj"](dy))):
        dx += back["ln1"](back[name + "_proj"](d))
    return dx

# == attention_half_backward: wrong, dx lacks the term dy
def attention_half_backward(dy, back):
    dq, dk, dv = back["attention"](back["o_proj"](dy))
    return back["ln1"](back["q_proj"](dq) + back["k_proj"](dk) + back["v_proj"](dv))

# == predicted_drop: wrong, an intermediate result has the root of np.sum(g ** 2)
def predicted_drop(grads, lr):
    total = 0.0
    for name in grads:
        total += np.sqrt(np.sum(grads[name] ** 2))
    return float(lr * total)
