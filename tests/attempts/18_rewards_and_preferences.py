"""Attempts at exercise set 18: `# ==`, the exercise, and right; or wrong, and words of the diagnosis."""
# == advantages: right, group by group
def advantages(rewards):
    rows = []
    for group in rewards:
        mean = sum(group) / len(group)
        variance = sum((r - mean) ** 2 for r in group) / (len(group) - 1)
        rows.append([(r - mean) / (variance**0.5 + 1e-4) for r in group])
    return np.array(rows)

# == advantages: wrong, advantages lacks the term 0.0001
def advantages(rewards):
    return (rewards - rewards.mean(1, keepdims=True)) / rewards.std(1, ddof=1, keepdims=True)

# == advantages: wrong, an intermediate result lacks ddof=1 in std
def advantages(rewards):
    return (rewards - rewards.mean(1)[:, None]) / (rewards.std(1)[:, None] + 1e-4)

# == advantages: wrong, mean and standard deviation are those of all rewards, not of a group
def advantages(rewards):
    return (rewards - np.mean(rewards)) / (np.std(rewards, ddof=1) + 1e-4)

# == token_log_probs_backward: right, by the cross-entropy of each position
def token_log_probs_backward(dl, x, W, targets):
    dx, dW = np.zeros_like(x), np.zeros_like(W)
    for n, t in enumerate(targets):
        e = np.exp(W @ x[n])
        dz = e / e.sum()
        dz[t] -= 1
        dx[n] = -dl[n] * dz @ W
        dW -= dl[n] * np.outer(dz, x[n])
    return dx, dW

# == token_log_probs_backward: wrong, its sign is reversed
def token_log_probs_backward(dl, x, W, targets):
    e = np.exp(x @ W.T)
    dz = e / e.sum(axis=1)[:, None]
    dz[range(len(dl)), targets] -= 1
    dz *= dl[:, None]
    return dz @ W, dz.T @ x

# == token_log_probs_backward: wrong, dz multiplies only onehot by dl[:, None]
def token_log_probs_backward(dl, x, W, targets):
    e = np.exp(x @ W.T)
    dz = -e / e.sum(axis=1)[:, None]
    dz[range(len(dl)), targets] += dl
    return dz @ W, dz.T @ x

# == token_log_probs_backward: wrong, dl belongs to log p, but is taken to belong to p
def token_log_probs_backward(dl, x, W, targets):
    e = np.exp(x @ W.T)
    p = e / e.sum(axis=1)[:, None]
    n = np.arange(len(dl))
    dz = -p * (dl * p[n, targets])[:, None]
    dz[n, targets] += dl * p[n, targets]
    return dz @ W, dz.T @ x

# == grpo: right, token by token
def grpo(log_probs, old, reference, advantage, real, clip, beta):
    loss, dlog_probs = 0.0, np.zeros_like(log_probs)
    N, T = log_probs.shape
    for n in range(N):
        tokens = [t for t in range(T) if real[n, t]]
        for t in tokens:
            A, ratio = advantage[n], np.exp(log_probs[n, t]) / np.exp(old[n, t])
            k = np.exp(reference[n, t]) / np.exp(log_probs[n, t])
            gain, slope = ratio * A, ratio * A
            if A > 0 and ratio > 1 + clip:
                gain, slope = (1 + clip) * A, 0.0
            if A < 0 and ratio < 1 - clip:
                gain, slope = (1 - clip) * A, 0.0
            loss -= (gain - beta * (k - np.log(k) - 1)) / len(tokens) / N
            dlog_probs[n, t] = (beta - beta * k - slope) / len(tokens) / N
    return loss, dlog_probs

# == grpo: right, with a mask of clipped tokens
def grpo(log_probs, old, reference, advantage, real, clip, beta):
    ratio, A, d = np.exp(log_probs - old), advantage[:, None], reference - log_probs
    clipped = np.where(A > 0, ratio > 1 + clip, ratio < 1 - clip)
    gain = np.where(clipped, np.clip(ratio, 1 - clip, 1 + clip), ratio) * A - beta * (np.exp(d) - d - 1)
    slope = np.where(clipped, 0, ratio * A) + beta * np.expm1(d)
    n = real.sum(axis=1)
    return -np.mean((real * gain).sum(axis=1) / n), -(real * slope) / n[:, None] / len(n)

# == grpo: wrong, ρ is clipped on both sides
def grpo(log_probs, old, reference, advantage, real, clip, beta):
    ratio, A, d = np.exp(log_probs - old), advantage[:, None], reference - log_probs
    inside = (ratio >= 1 - clip) & (ratio <= 1 + clip)
    gain = np.clip(ratio, 1 - clip, 1 + clip) * A - beta * (np.exp(d) - d - 1)
    slope = inside * ratio * A - beta * (1 - np.exp(d))
    weight = real / real.sum(axis=1)[:, None] / len(real)
    return -(weight * gain).sum(), -weight * slope

# == grpo: wrong, gain has limited in place of (np.exp(log_probs - old)
def grpo(log_probs, old, reference, advantage, real, clip, beta):
    ratio, A, d = np.exp(log_probs - old), advantage[:, None], reference - log_probs
    inside = (ratio >= 1 - clip) & (ratio <= 1 + clip)
    gain = np.clip(ratio, 1 - clip, 1 + clip) * A - beta * (np.exp(d) - d - 1)
    slope = inside * ratio * A - beta * (1 - np.exp(d))
    weight = real / real.sum(axis=1)[:, None] / len(real)
    return -(weight * gain).sum(), -weight * slope

# == grpo: wrong, the mean is over all tokens at once
def grpo(log_probs, old, reference, advantage, real, clip, beta):
    ratio, A, d = np.exp(log_probs - old), advantage[:, None], reference - log_probs
    clipped = np.where(A > 0, ratio > 1 + clip, ratio < 1 - clip)
    gain = np.minimum(ratio * A, np.clip(ratio, 1 - clip, 1 + clip) * A) - beta * (np.exp(d) - d - 1)
    slope = np.where(clipped, 0, ratio * A) - beta * (1 - np.exp(d))
    return -gain[real].mean(), -slope * real / real.sum()

# == grpo: wrong, loss lacks axis=1 in mean
def grpo(log_probs, old, reference, advantage, real, clip, beta):
    A, d = np.tile(advantage[:, None], real.shape[1])[real], (reference - log_probs)[real]
    ratio = np.exp(log_probs - old)[real]
    gain = np.minimum(ratio * A, np.clip(ratio, 1 - clip, 1 + clip) * A) - beta * (np.exp(d) - d - 1)
    dlog_probs = np.zeros_like(log_probs)
    clipped = np.where(A > 0, ratio > 1 + clip, ratio < 1 - clip)
    dlog_probs[real] = -(np.where(clipped, 0, ratio * A) - beta * (1 - np.exp(d))) / len(A)
    return -gain.mean(), dlog_probs

# == grpo: wrong, padding counts as if it were part of the completions
def grpo(log_probs, old, reference, advantage, real, clip, beta):
    ratio, A, d = np.exp(log_probs - old), advantage[:, None], reference - log_probs
    clipped = np.where(A > 0, ratio > 1 + clip, ratio < 1 - clip)
    gain = np.minimum(ratio * A, np.clip(ratio, 1 - clip, 1 + clip) * A) - beta * (np.exp(d) - d - 1)
    slope = np.where(clipped, 0, ratio * A) - beta * (1 - np.exp(d))
    return -gain.mean(), -slope / gain.size

# == grpo: wrong, loss lacks where=real in mean
def grpo(log_probs, old, reference, advantage, real, clip, beta):
    ratio, A, d = np.exp(log_probs - old), advantage[:, None], reference - log_probs
    clipped = np.where(A > 0, ratio > 1 + clip, ratio < 1 - clip)
    gain = np.minimum(ratio * A, np.clip(ratio, 1 - clip, 1 + clip) * A) - beta * (np.exp(d) - d - 1)
    slope = np.where(clipped, 0, ratio * A) - beta * (1 - np.exp(d))
    return -gain.mean(), -slope / gain.size

# == grpo: wrong, dlog_probs has beta in place of (beta * (1 - np.exp(d)))
def grpo(log_probs, old, reference, advantage, real, clip, beta):
    ratio, A, d = np.exp(log_probs - old), advantage[:, None], reference - log_probs
    clipped = np.where(A > 0, ratio > 1 + clip, ratio < 1 - clip)
    gain = np.minimum(ratio * A, np.clip(ratio, 1 - clip, 1 + clip) * A) - beta * (np.exp(d) - d - 1)
    slope = np.where(clipped, 0, ratio * A) - beta
    weight = real / real.sum(axis=1)[:, None] / len(real)
    return -(weight * gain).sum(), -weight * slope

# == grpo: wrong, dlog_probs has (beta * (1 - np.exp(d))) with the wrong sign
def grpo(log_probs, old, reference, advantage, real, clip, beta):
    ratio, A, d = np.exp(log_probs - old), advantage[:, None], reference - log_probs
    clipped = np.where(A > 0, ratio > 1 + clip, ratio < 1 - clip)
    gain = np.minimum(ratio * A, np.clip(ratio, 1 - clip, 1 + clip) * A) - beta * (np.exp(d) - d - 1)
    slope = np.where(clipped, 0, ratio * A) - beta * (np.exp(d) - 1)
    weight = real / real.sum(axis=1)[:, None] / len(real)
    return -(weight * gain).sum(), -weight * slope

# == grpo: wrong, its sign is reversed
def grpo(log_probs, old, reference, advantage, real, clip, beta):
    ratio, A, d = np.exp(log_probs - old), advantage[:, None], reference - log_probs
    clipped = np.where(A > 0, ratio > 1 + clip, ratio < 1 - clip)
    gain = np.minimum(ratio * A, np.clip(ratio, 1 - clip, 1 + clip) * A) - beta * (np.exp(d) - d - 1)
    slope = np.where(clipped, 0, ratio * A) - beta * (1 - np.exp(d))
    weight = real / real.sum(axis=1)[:, None] / len(real)
    return (weight * gain).sum(), weight * slope

# == dpo: right, by cases
def dpo(log_probs, reference, beta):
    loss, dlog_probs = 0.0, []
    for policy, base in zip(log_probs, reference):
        m = beta * (policy[0] - policy[1] - base[0] + base[1])
        e = np.exp(-abs(m))
        loss += (np.log1p(e) + max(-m, 0)) / len(log_probs)
        s = e / (1 + e) if m > 0 else 1 / (1 + e)
        dlog_probs.append([-beta * s / len(log_probs), beta * s / len(log_probs)])
    return loss, np.array(dlog_probs)

# == dpo: wrong, not finite (infinity
def dpo(log_probs, reference, beta):
    m = beta * ((log_probs - reference)[:, 0] - (log_probs - reference)[:, 1])
    p = 1 / (1 + np.exp(-m))
    slope = (p - 1) * beta / len(m)
    return -np.log(p).mean(), np.column_stack([slope, -slope])

# == dpo: wrong, their weight is σ(m), not σ(−m)
def dpo(log_probs, reference, beta):
    m = beta * (np.diff(reference)[:, 0] - np.diff(log_probs)[:, 0])
    slope = beta / (1 + np.exp(-m)) / len(m)
    return np.logaddexp(0, -m).mean(), np.column_stack([-slope, slope])

# == dpo: wrong, the logarithm is taken after the mean
def dpo(log_probs, reference, beta):
    m = beta * (np.diff(reference)[:, 0] - np.diff(log_probs)[:, 0])
    p = 1 / (1 + np.exp(-m))
    slope = beta * (1 - p) / len(m)
    return -np.log(p.mean()), np.column_stack([-slope, slope])

# == dpo: wrong, change lacks the term reference
def dpo(log_probs, reference, beta):
    m = -beta * np.diff(log_probs)[:, 0]
    slope = beta / (1 + np.exp(m)) / len(m)
    return np.logaddexp(0, -m).mean(), np.column_stack([-slope, slope])
