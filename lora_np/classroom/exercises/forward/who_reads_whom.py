"""8. Who reads whom? (4 points).

This is the second of two tests of an entire model. A language model that can see the tokens it must predict learns
nothing, but its loss looks splendid. Future tokens can leak through a mask that is off by one, or through heads that
are merged by a reshape without a transpose. Write a test that detects such leaks **from the outside**, for any model.

`model(ids)` takes ids (N, T) and returns logits (N, T, V), where `V` is the size of the vocabulary. You cannot look
inside. Return a boolean (T, T) array `reads`: `reads[i, j]` is True if the logits at position `i` change, in any of the
texts, when the token at position `j` is replaced by a different one.

**Before you write:** how do you make sure that the new token differs from the old one in every text? What exactly may
differ between the two inputs that you compare? Do you compare bit for bit, or up to a tolerance, and which bugs would a
tolerance hide? **Predict** `reads` for a causal model. (The check's models are not quite causal.)
"""

import numpy as np

HINTS = {"reads": "Replace only the token at j with a different one. At which positions does any logit change?"}
FORMULA = """changed = ids.copy();  changed[:, j] = (ids[:, j] + 1) % V
reads[:, j] = (model(changed) != model(ids)).any(axis=(0, 2)), for each j"""


def who_reads_whom(model, ids, V):
    """model: ids (N, T) -> logits (N, T, V); ids (N, T) of ints 0 … V−1 -> reads (T, T) of bool."""
    T = ids.shape[1]
    before = model(ids)  # (N, T, V)
    reads = np.zeros((T, T), dtype=bool)
    for j in range(T):
        other = (ids + 1) % V  # the next token of the vocabulary, which always differs
        changed = np.where(np.arange(T) == j, other, ids)  # all other tokens are unchanged
        # Compare bit for bit: a mask value of −20, say, leaks e⁻²⁰, which a tolerance would hide.
        differs = model(changed) != before  # (N, T, V)
        reads[:, j] = differs.any(axis=(0, 2))  # (T,): True where any logit of any text has changed
    return reads
    # For a causal model, reads is True on and below the diagonal and False above it, as in np.tri(T).


def draw(rng, size):
    """Draw a model that is causal except for four flaws: a leak from the future, as faint as with a mask value of −20,
    and three positions that ignore an earlier one: one in all texts, one only in the first, and one only in the others.
    Each token of the small vocabulary fills one column of ids, so no single token works as the replacement everywhere.
    """
    T, V = size.T + 3, 7
    weights = np.tril(rng.uniform(0.5, 1.5, (T, T)))
    weights[1, 2] = 2e-9
    weights[2, 0] = 0.0
    ids = rng.integers(0, V, (size.B, T))
    ids[:, 1 : V + 1] = 0, V - 1, 1, *range(2, V - 1)
    ids[:, 0] = np.arange(size.B) > 0
    embedding = rng.normal(size=(V, size.C))
    head = rng.normal(size=(size.C, 1)) * rng.uniform(1, 2, V)  # a change moves all logits in the same direction

    def model(ids):
        reading = np.repeat(weights[None], len(ids), axis=0)
        reading[ids[:, 0] == 0, 3, 1] = reading[ids[:, 0] != 0, 4, 2] = 0.0
        return reading @ embedding[ids] @ head

    return {"model": model, "ids": ids, "V": V}


MISTAKES = {
    "where the token is already 0, it is replaced by itself": ("(ids + 1) % V", "0 * ids"),
    "where the token is already the last one, it is replaced by itself": ("(ids + 1) % V", "ids + (ids < V - 1)"),
    "only the first text is read": ("differs.any(axis=(0, 2))", "differs[0].any(axis=1)"),
    "the tokens before j are replaced as well": ("== j", "<= j"),
    "a faint change is missed: compare bit for bit": lambda i: np.tril(i.right["reads"]),
}

AFTER = """**Beyond the points.** Try your test and your functions on the package's own base model. Type this in:

    from lora_np.formats import load_pretrained
    from lora_np.model import forward

    params, config = load_pretrained()
    ids, record = np.array([[0, 11, 42, 7, 99]]), {}
    logits, _ = forward(params, ids, config, record=record)
    print(who_reads_whom(lambda ids: forward(params, ids, config)[0], ids, config.vocab_size).astype(int))

    x = embed(ids, params["tok_emb.weight"], params["pos_emb.weight"])
    h = layer_norm(x, params["blocks.0.ln1.weight"], params["blocks.0.ln1.bias"], config.layer_norm_eps)
    print(np.abs(h - record["blocks.0.ln1"]).max())

Now continue. With two lines for a linear layer, and softmax and GELU from lesson 03, you have all parts of the model.
In about fifteen more lines you can compare your own logits with `logits`.
"""
