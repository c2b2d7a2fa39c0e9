"""Attempts at exercise set 04. Each begins with `# ==`, the item, and what it is: right; or wrong, and after it words
of the diagnosis that it has to get."""

# == residual_backward: right, in place on what the branch gives back
def residual_backward(dy, branch_backward):
    dx = np.array(branch_backward(dy))
    dx += dy
    return dx


# == residual_backward: right, as a list of ways
def residual_backward(dy, branch_backward):
    ways = [lambda d: d, branch_backward]
    return np.stack([way(dy) for way in ways]).sum(axis=0)


# == residual_backward: wrong, the way around the branch is missing
def residual_backward(dy, branch_backward):
    return branch_backward(dy)


# == residual_backward: wrong, the way through the branch is missing
def residual_backward(dy, branch_backward):
    return dy.copy()


# == residual_backward: wrong, 1 stands where dy belongs
def residual_backward(dy, branch_backward):
    return np.ones_like(dy) + branch_backward(dy)


# == residual_backward: wrong, the right value divided by 2
def residual_backward(dy, branch_backward):
    return np.mean([dy, branch_backward(dy)], axis=0)


# == residual_backward: wrong, taken for a slope
def residual_backward(dy, branch_backward):
    slope = 1 + branch_backward(dy)
    return slope * dy


# == residual_backward: wrong, it changes its argument dy
def residual_backward(dy, branch_backward):
    dy += branch_backward(dy)
    return dy


# == residual_backward: wrong, gone through the branch twice
def residual_backward(dy, branch_backward):
    dx = branch_backward(dy)
    dx = dy + branch_backward(dx)
    return dx


# == predicted_drop: right, by dot products
def predicted_drop(grads, lr):
    total = 0.0
    for g in grads.values():
        total += np.vdot(g, g)
    return float(lr * total)


# == predicted_drop: right, as the product of the step and the gradient
def predicted_drop(grads, lr):
    gradient = np.concatenate([g.ravel() for g in grads.values()])
    step = -lr * gradient
    return -(step @ gradient)


# == predicted_drop: right, by norms of norms
def predicted_drop(grads, lr):
    norms = [np.linalg.norm(g) for g in grads.values()]
    return lr * np.linalg.norm(norms) ** 2


# == predicted_drop: wrong, divided by lr
def predicted_drop(grads, lr):
    return sum((g**2).sum() for g in grads.values())


# == predicted_drop: wrong, the norm of the gradient is not squared
def predicted_drop(grads, lr):
    return lr * np.sqrt(sum((g**2).sum() for g in grads.values()))


# == predicted_drop: wrong, added up first and squared
def predicted_drop(grads, lr):
    return lr * sum(g.sum() for g in grads.values()) ** 2


# == predicted_drop: wrong, the absolute values stand
def predicted_drop(grads, lr):
    return sum(lr * np.abs(g).sum() for g in grads.values())


# == predicted_drop: wrong, its sign is reversed
def predicted_drop(grads, lr):
    return sum(np.sum(-lr * g * g) for g in grads.values())


# == predicted_drop: wrong, the last array's part alone
def predicted_drop(grads, lr):
    for g in grads.values():
        drop = lr * (g**2).sum()
    return drop


# == predicted_drop: wrong, each array's mean stands
def predicted_drop(grads, lr):
    return lr * sum(np.mean(g * g) for g in grads.values())


# == predicted_drop: wrong, divided by 2
def predicted_drop(grads, lr):
    return 0.5 * lr * sum(np.sum(g * g) for g in grads.values())


# == predicted_drop: wrong, the right value times lr
def predicted_drop(grads, lr):
    return lr**2 * sum(np.sum(g * g) for g in grads.values())


# == embedding_backward: right, by a loop over the places
def embedding_backward(dy, ids, V):
    dtable = np.zeros((V, dy.shape[2]))
    for b in range(ids.shape[0]):
        for t in range(ids.shape[1]):
            dtable[ids[b, t]] += dy[b, t]
    return dtable


# == embedding_backward: right, as a linear layer with one-hot rows
def embedding_backward(dy, ids, V):
    onehot = np.eye(V)[ids]
    return np.einsum("btv,btc->vc", onehot, dy)


# == embedding_backward: right, token by token
def embedding_backward(dy, ids, V):
    return np.array([dy[ids == token].sum(axis=0) for token in range(V)])


# == embedding_backward: wrong, the gradient of its last place alone
def embedding_backward(dy, ids, V):
    dtable = np.zeros((V, dy.shape[-1]))
    dtable[ids] += dy
    return dtable


# == embedding_backward: wrong, the gradient of its first place alone
def embedding_backward(dy, ids, V):
    dtable = np.zeros((V, dy.shape[-1]))
    found, first = np.unique(ids, return_index=True)
    dtable[found] = dy.reshape(-1, dy.shape[-1])[first]
    return dtable


# == embedding_backward: wrong, averaged, not added up
def embedding_backward(dy, ids, V):
    dtable = np.zeros((V, dy.shape[-1]))
    for token in np.unique(ids):
        dtable[token] = dy[ids == token].mean(axis=0)
    return dtable


# == embedding_backward: wrong, only the first text
def embedding_backward(dy, ids, V):
    dtable = np.zeros((V, dy.shape[-1]))
    for t, token in enumerate(ids[0]):
        dtable[token] += dy[0, t]
    return dtable


# == embedding_backward: wrong, the position table's gradient
def embedding_backward(dy, ids, V):
    dtable = np.zeros((V, dy.shape[-1]))
    for text in dy:
        dtable[: text.shape[0]] += text
    return dtable


# == embedding_backward: wrong, divided by B·T
def embedding_backward(dy, ids, V):
    dtable = np.zeros((V, dy.shape[-1]))
    np.add.at(dtable, ids, dy / ids.size)
    return dtable


# == embedding_backward: wrong, it has shape
def embedding_backward(dy, ids, V):
    dtable = np.zeros((ids.max() + 1, dy.shape[-1]))
    np.add.at(dtable, ids, dy)
    return dtable


# == attend_backward: right, by einsum
def attend_backward(dcontext, probs, v):
    B, H, T, D = v.shape
    d = dcontext.reshape(B, T, H, D)
    return np.einsum("bihd,bhjd->bhij", d, v), np.einsum("bhij,bihd->bhjd", probs, d)


# == attend_backward: right, head by head with columns cut out
def attend_backward(dcontext, probs, v):
    dprobs, dv = np.zeros(probs.shape), np.zeros(v.shape)
    for b in range(v.shape[0]):
        for h in range(v.shape[1]):
            D = v.shape[3]
            d = dcontext[b, :, h * D : (h + 1) * D]
            dprobs[b, h] = d.dot(v[b, h].T)
            dv[b, h] = probs[b, h].T.dot(d)
    return dprobs, dv


# == attend_backward: right, with np.split
def attend_backward(dcontext, probs, v):
    d = np.stack(np.split(dcontext, probs.shape[1], axis=-1), axis=1)
    dv = (probs[..., None] * d[:, :, :, None, :]).sum(axis=2)
    dprobs = (d[:, :, :, None, :] * v[:, :, None, :, :]).sum(axis=-1)
    return {"dv": dv, "dprobs": dprobs}


# == attend_backward: wrong, cut into heads by reshape alone
def attend_backward(dcontext, probs, v):
    d = dcontext.reshape(v.shape)
    return d @ v.transpose(0, 1, 3, 2), probs.transpose(0, 1, 3, 2) @ d


# == attend_backward: wrong, columns side by side
def attend_backward(dcontext, probs, v):
    B, H, T, D = v.shape
    d = dcontext.reshape(B, T, D, H).transpose(0, 3, 1, 2)
    return d @ v.transpose(0, 1, 3, 2), probs.transpose(0, 1, 3, 2) @ d


# == attend_backward: wrong, keys and queries are exchanged
def attend_backward(dcontext, probs, v):
    B, H, T, D = v.shape
    d = dcontext.reshape(B, T, H, D).swapaxes(1, 2)
    return d @ v.swapaxes(2, 3), probs @ d


# == attend_backward: wrong, its gradient is not
def attend_backward(dcontext, probs, v):
    B, H, T, D = v.shape
    d = dcontext.reshape(B, T, H, D).swapaxes(1, 2)
    dprobs = np.where(probs > 0, d @ v.swapaxes(2, 3), 0.0)
    return dprobs, probs.swapaxes(2, 3) @ d


# == attend_backward: wrong, with its axes exchanged, (0, 1, 3, 2)
def attend_backward(dcontext, probs, v):
    B, H, T, D = v.shape
    d = dcontext.reshape(B, T, H, D).swapaxes(1, 2)
    return v @ d.swapaxes(2, 3), probs.swapaxes(2, 3) @ d


# == attend_backward: wrong, gone back through the softmax already
def attend_backward(dcontext, probs, v):
    B, H, T, D = v.shape
    d = dcontext.reshape(B, T, H, D).swapaxes(1, 2)
    dprobs = d @ v.swapaxes(2, 3)
    dprobs = probs * (dprobs - (probs * dprobs).sum(-1, keepdims=True))
    return dprobs, probs.swapaxes(2, 3) @ d


# == attend_backward: wrong, divided by √D
def attend_backward(dcontext, probs, v):
    B, H, T, D = v.shape
    d = dcontext.reshape(B, T, H, D).swapaxes(1, 2)
    return d @ v.swapaxes(2, 3) / np.sqrt(D), probs.swapaxes(2, 3) @ d


# == attend_backward: wrong, it has shape
def attend_backward(dcontext, probs, v):
    B, H, T, D = v.shape
    d = dcontext.reshape(B, T, H, D).swapaxes(1, 2)
    dv = probs.swapaxes(2, 3) @ d
    return d @ v.swapaxes(2, 3), dv.swapaxes(1, 2).reshape(B, T, H * D)


# == scores_backward: right, row by row with the matrix of derivatives
def scores_backward(dprobs, probs):
    dscores = np.zeros_like(probs)
    for place in np.ndindex(probs.shape[:3]):
        p = probs[place]
        dscores[place] = (np.diag(p) - np.outer(p, p)) @ dprobs[place]
    return dscores


# == scores_backward: right, masked with care that it does not need
def scores_backward(dprobs, probs):
    T = probs.shape[-1]
    allowed = np.arange(T)[:, None] >= np.arange(T)
    d = np.where(allowed, dprobs, 0)
    d = probs * d - probs * np.einsum("bhij,bhij->bhi", probs, d)[..., np.newaxis]
    d[:, :, ~allowed] = 0
    return d


# == scores_backward: wrong, through the softmax's denominator is missing
def scores_backward(dprobs, probs):
    return probs * dprobs


# == scores_backward: wrong, the sum runs over the queries
def scores_backward(dprobs, probs):
    return probs * (dprobs - (probs * dprobs).sum(axis=2, keepdims=True))


# == scores_backward: wrong, keys after their query get a gradient
def scores_backward(dprobs, probs):
    return dprobs - (probs * dprobs).sum(axis=-1, keepdims=True)


# == scores_backward: wrong, by its own score alone
def scores_backward(dprobs, probs):
    return dprobs * (probs - probs**2)


# == scores_backward: wrong, over the keys that may be looked at
def scores_backward(dprobs, probs):
    d = np.where(probs > 0, dprobs, 0.0)
    return probs * (d - d.sum(axis=-1, keepdims=True))


# == scores_backward: wrong, not finite (NaN or infinity)
def scores_backward(dprobs, probs):
    d = probs * (dprobs - (probs * dprobs).sum(axis=-1, keepdims=True))
    return np.where(np.tri(probs.shape[-1], dtype=bool), d, -np.inf)


# == scores_backward: wrong, added, not subtracted
def scores_backward(dprobs, probs):
    return probs * dprobs + probs * (probs * dprobs).sum(axis=-1, keepdims=True)


# == query_key_backward: right, by einsum
def query_key_backward(dscores, q, k):
    root = q.shape[-1] ** 0.5
    return np.einsum("bhij,bhjd->bhid", dscores, k) / root, np.einsum("bhij,bhid->bhjd", dscores, q) / root


# == query_key_backward: right, by loops over scores that may be looked at
def query_key_backward(dscores, q, k):
    dq, dk = np.zeros(q.shape), np.zeros(k.shape)
    B, H, T, D = q.shape
    for b, h in np.ndindex(B, H):
        for i in range(T):
            for j in range(i + 1):
                dq[b, h, i] += dscores[b, h, i, j] * k[b, h, j]
                dk[b, h, j] += dscores[b, h, i, j] * q[b, h, i]
    return dq / np.sqrt(D), dk / np.sqrt(D)


# == query_key_backward: right, the root shared out
def query_key_backward(dscores, q, k):
    d = dscores * q.shape[3] ** -0.25
    fourth = k.shape[3] ** -0.25
    return np.matmul(d, k * fourth), np.matmul(np.transpose(d, (0, 1, 3, 2)), q * fourth)


# == query_key_backward: wrong, times √D
def query_key_backward(dscores, q, k):
    return dscores @ k, dscores.swapaxes(-1, -2) @ q / np.sqrt(q.shape[-1])


# == query_key_backward: wrong, √H (it has √C for √D)
def query_key_backward(dscores, q, k):
    C = q.shape[1] * q.shape[3]
    return dscores @ k / np.sqrt(C), dscores.swapaxes(-1, -2) @ q / np.sqrt(C)


# == query_key_backward: wrong, dscores is not transposed in dk
def query_key_backward(dscores, q, k):
    root = np.sqrt(q.shape[-1])
    return dscores @ k / root, dscores @ q / root


# == query_key_backward: wrong, k stands in dk
def query_key_backward(dscores, q, k):
    root = np.sqrt(q.shape[-1])
    return dscores @ k / root, dscores.swapaxes(-1, -2) @ k / root


# == query_key_backward: wrong, q stands in dq
def query_key_backward(dscores, q, k):
    root = np.sqrt(q.shape[-1])
    return dscores @ q / root, dscores.swapaxes(-1, -2) @ q / root


# == query_key_backward: wrong, it is dk
def query_key_backward(dscores, q, k):
    root = np.sqrt(q.shape[-1])
    return dscores.swapaxes(-1, -2) @ q / root, dscores @ k / root


# == query_key_backward: wrong, own position is left out of dq
def query_key_backward(dscores, q, k):
    root = np.sqrt(q.shape[-1])
    dq = np.zeros_like(q)
    for i in range(q.shape[2]):
        for j in range(i):
            dq[:, :, i] += dscores[:, :, i, j, None] * k[:, :, j] / root
    return dq, dscores.swapaxes(-1, -2) @ q / root


# == query_key_backward: wrong, divided by √D
def query_key_backward(dscores, q, k):
    D = q.shape[-1]
    return dscores @ k / D, dscores.swapaxes(-1, -2) @ q / D


# == three_ways_backward: right, as one layer of three times the width
def three_ways_backward(dq, dk, dv, Wq, Wk, Wv):
    return np.concatenate([dq, dk, dv], axis=-1) @ np.concatenate([Wq, Wk, Wv], axis=0)


# == three_ways_backward: right, by einsum into one array
def three_ways_backward(dq, dk, dv, Wq, Wk, Wv):
    dh = np.zeros_like(dq)
    for d, W in zip((dq, dk, dv), (Wq, Wk, Wv)):
        dh += np.einsum("bto,oi->bti", d, W)
    return dh


# == three_ways_backward: wrong, the weights are transposed
def three_ways_backward(dq, dk, dv, Wq, Wk, Wv):
    return dq @ Wq.T + dk @ Wk.T + dv @ Wv.T


# == three_ways_backward: wrong, the way through v is missing
def three_ways_backward(dq, dk, dv, Wq, Wk, Wv):
    return dq @ Wq + dk @ Wk


# == three_ways_backward: wrong, the way through k is missing
def three_ways_backward(dq, dk, dv, Wq, Wk, Wv):
    dh = dq @ Wq
    dh = dh + dv @ Wv
    return dh


# == three_ways_backward: wrong, the gradients are added up first
def three_ways_backward(dq, dk, dv, Wq, Wk, Wv):
    return (dq + dk + dv) @ (Wq + Wk + Wv)


# == three_ways_backward: wrong, divided by 3 (the ways)
def three_ways_backward(dq, dk, dv, Wq, Wk, Wv):
    return np.mean([dq @ Wq, dk @ Wk, dv @ Wv], axis=0)


# == three_ways_backward: wrong, only the way through v is there
def three_ways_backward(dq, dk, dv, Wq, Wk, Wv):
    for d, W in ((dq, Wq), (dk, Wk), (dv, Wv)):
        dh = d @ W
    return dh


# == attention_half_backward: right, ln1 in three parts
def attention_half_backward(dy, back):
    dx = dy.copy()
    for name, d in zip("qkv", back["attention"](back["o_proj"](dy))):
        dx += back["ln1"](back[name + "_proj"](d))
    return dx


# == attention_half_backward: right, in place along one array
def attention_half_backward(dy, back):
    d = back["o_proj"](dy)
    dq, dk, dv = back["attention"](d)
    dh = np.zeros(d.shape)
    dh += back["v_proj"](dv)
    dh += back["k_proj"](dk)
    dh += back["q_proj"](dq)
    dx = np.array(back["ln1"](dh))
    np.add(dx, dy, out=dx)
    return (dx,)


# == attention_half_backward: wrong, the way around the branch is missing
def attention_half_backward(dy, back):
    dq, dk, dv = back["attention"](back["o_proj"](dy))
    return back["ln1"](back["q_proj"](dq) + back["k_proj"](dk) + back["v_proj"](dv))


# == attention_half_backward: wrong, has gone through ln1, which stands in the branch
def attention_half_backward(dy, back):
    dq, dk, dv = back["attention"](back["o_proj"](dy))
    return back["ln1"](dy + back["q_proj"](dq) + back["k_proj"](dk) + back["v_proj"](dv))


# == attention_half_backward: wrong, begins behind o_proj
def attention_half_backward(dy, back):
    dy = back["o_proj"](dy)
    dq, dk, dv = back["attention"](dy)
    return dy + back["ln1"](back["q_proj"](dq) + back["k_proj"](dk) + back["v_proj"](dv))


# == attention_half_backward: wrong, v's way is missing
def attention_half_backward(dy, back):
    dq, dk, dv = back["attention"](back["o_proj"](dy))
    return dy + back["ln1"](back["q_proj"](dq) + back["k_proj"](dk))


# == attention_half_backward: wrong, attention gives dq, dk, dv
def attention_half_backward(dy, back):
    dv, dk, dq = back["attention"](back["o_proj"](dy))
    return dy + back["ln1"](back["q_proj"](dq) + back["k_proj"](dk) + back["v_proj"](dv))


# == attention_half_backward: wrong, ln1 is left out
def attention_half_backward(dy, back):
    dq, dk, dv = back["attention"](back["o_proj"](dy))
    return dy + back["q_proj"](dq) + back["k_proj"](dk) + back["v_proj"](dv)


# == attention_half_backward: wrong, o_proj is left out
def attention_half_backward(dy, back):
    dq, dk, dv = back["attention"](dy)
    return dy + back["ln1"](back["q_proj"](dq) + back["k_proj"](dk) + back["v_proj"](dv))
