"""Attempts at exercise set 15: `# ==`, the exercise, and right; or wrong, and words of the diagnosis."""
# == q4_1_decode: right, by bits, block by block
def q4_1_decode(packed, d, m):
    w = np.empty((len(d), 32))
    for n, block in enumerate(packed):
        w[n, :16] = (block & 0x0F) * d[n] + m[n]
        w[n, 16:] = (block >> 4) * d[n] + m[n]
    return w

# == q4_1_decode: wrong, the two codes of a byte are treated as codes 2i and 2i + 1, not i and i + 16
def q4_1_decode(packed, d, m):
    codes = np.empty((len(packed), 32))
    codes[:, 0::2], codes[:, 1::2] = packed % 16, packed // 16
    return codes * d[:, None] + m[:, None]

# == q4_1_decode: wrong, codes has packed % 16 and packed // 16 swapped
def q4_1_decode(packed, d, m):
    return d[:, None] * np.hstack([packed >> 4, packed & 15]) + m[:, None]

# == q4_1_encode: right, block by block, with the nearest of 16 marks
def q4_1_encode(w):
    codes, d, m = [], [], []
    for block in w:
        low, high = min(block), max(block)
        marks = np.linspace(low, high, 16)
        codes.append(np.argmin(np.abs(block[:, None] - marks), axis=1))
        d.append(marks[1] - marks[0])
        m.append(low)
    return np.array(codes), np.array(d), np.array(m)

# == q4_1_encode: wrong, codes lacks the term 0.5
def q4_1_encode(w):
    m = w.min(axis=1, keepdims=True)
    d = (w.max(axis=1, keepdims=True) - m) / 15
    codes = np.floor(np.divide(w - m, d, out=np.zeros_like(w), where=d > 0))
    return codes, d[:, 0], m[:, 0]

# == q4_1_encode: wrong, d has 16 in place of 15
def q4_1_encode(w):
    m = w.min(axis=1)
    d = np.ptp(w, axis=1) / 16
    return np.rint((w - m[:, None]) / np.where(d == 0, 1, d)[:, None]), d, m

# == label_probabilities: right, by the softmax over all tokens
def label_probabilities(logits, first):
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    p = p[:, first]
    return p / p.sum(axis=1, keepdims=True)

# == label_probabilities: wrong, the softmax is taken over all tokens, so the rows do not add up to 1
def label_probabilities(logits, first):
    p = np.exp(logits)
    return (p / p.sum(axis=1, keepdims=True))[:, first]

# == label_probabilities: wrong, every operation is along axis 0
def label_probabilities(logits, first):
    e = np.exp(logits[:, first])
    return e / e.sum(axis=0)

# == answer_targets: right, token by token
def answer_targets(ids, is_answer):
    targets = []
    for token, counts in list(zip(ids, is_answer))[1:]:
        targets.append(token if counts else -100)
    return ids[: len(ids) - 1], np.array(targets)

# == answer_targets: wrong, a target counts if its input is part of an answer, not if the target is
def answer_targets(ids, is_answer):
    inputs, targets = ids[:-1], ids[1:].copy()
    targets[~is_answer[:-1]] = -100
    return inputs, targets

# == answer_targets: wrong, each token is its own target, instead of the next one
def answer_targets(ids, is_answer):
    return ids[:-1], np.where(is_answer, ids, -100)[:-1]

# == answer_loss: right, place by place
def answer_loss(logits, targets):
    loss, dlogits = 0.0, np.zeros(logits.shape)
    n = sum(1 for target in targets if target != -100)
    for t, target in enumerate(targets):
        if target != -100:
            e = np.exp(logits[t])
            loss += (np.log(e.sum()) - logits[t, target]) / n
            dlogits[t] = (e / e.sum() - np.eye(len(e))[target]) / n
    return loss, dlogits

# == answer_loss: wrong, the rows that do not count also have a gradient, their softmax
def answer_loss(logits, targets):
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
    t = np.flatnonzero(targets != -100)
    loss = -np.log(p[t, targets[t]]).mean()
    p[t, targets[t]] -= 1
    return loss, p / len(t)

# == answer_loss: wrong, the sum is divided by T, but fewer targets count
def answer_loss(logits, targets):
    log_p = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
    of_targets = log_p[np.arange(len(targets)), targets]
    d = np.exp(log_p) - np.eye(logits.shape[1])[targets]
    d[targets < 0] = 0
    return -np.mean(np.where(targets >= 0, of_targets, 0)), d / np.sum(targets >= 0)

# == repetition_penalty: right, by a set
def repetition_penalty(logits, seen, penalty):
    new = list(logits)
    for token in set(seen.tolist()):
        new[token] = new[token] / penalty if new[token] >= 0 else new[token] * penalty
    return np.array(new)

# == repetition_penalty: wrong, a token that was seen three times is penalised three times
def repetition_penalty(logits, seen, penalty):
    new = logits.copy()
    for token in seen:
        new[token] = new[token] / penalty if new[token] > 0 else new[token] * penalty
    return new

# == repetition_penalty: wrong, negative logits are divided as well, so their tokens become more probable
def repetition_penalty(logits, seen, penalty):
    new = logits.copy()
    new[np.unique(seen)] /= penalty
    return new

# == rows_for_llama_cpp: right, by two slices of each head
def rows_for_llama_cpp(B, n_heads):
    rows = np.empty_like(B)
    D = len(B) // n_heads
    for h in range(n_heads):
        head = B[h * D : (h + 1) * D]
        rows[h * D : (h + 1) * D : 2] = head[: D // 2]
        rows[h * D + 1 : (h + 1) * D : 2] = head[D // 2 :]
    return rows

# == rows_for_llama_cpp: wrong, this is the inverse, from the file's order to ours
def rows_for_llama_cpp(B, n_heads):
    heads = np.split(B, n_heads)
    return np.concatenate([part for head in heads for part in (head[::2], head[1::2])])

# == rows_for_llama_cpp: wrong, all rows are treated as one head
def rows_for_llama_cpp(B, n_heads):
    half = len(B) // 2
    order = np.arange(2 * half).reshape(2, half).T.ravel()
    return B[order]
