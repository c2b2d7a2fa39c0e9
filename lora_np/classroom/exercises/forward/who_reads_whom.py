"""Who reads whom?

The second judge. A language model that can see its answers learns nothing, and its loss looks splendid. A mask that is
off by one does that, and so do heads that are merged by a reshape alone. Write the test that finds out, **from
outside**, for any model.

`model(ids)` takes ids (N, T) and gives logits (N, T, V), where `V` is the size of the vocabulary. You cannot see what
happens inside. Give a (T, T) array `reads` of True and False: row `i`, column `j` is True if the logits at position
`i`, in any of the texts, change when the token at position `j` is replaced by another one.

**Before you write:** how do you choose the other token, so that it is another one at every place? What exactly may
differ between the two inputs? Do you ask for equal bits, or for equality up to a tolerance, and which mistake of a
model would then slip through? **Predict** `reads` for a causal model. (The check's models are not quite causal.)
"""

import numpy as np

POINTS = 4
OUTPUTS = ("reads",)
HINTS = {"reads": "Replace only the token at j, and by another one. Where is any logit no longer the same?"}
FORMULA = """changed = ids.copy();  changed[:, j] = (ids[:, j] + 1) % V
reads[:, j] = (model(changed) != model(ids)).any(axis=(0, 2)), for each j"""


def who_reads_whom(model, ids, V):
    """model: ids (N, T) -> logits (N, T, V); ids (N, T) of whole numbers 0 … V−1 -> reads (T, T) of bool."""
    T = ids.shape[1]
    before = model(ids)  # (N, T, V)
    reads = np.zeros((T, T), dtype=bool)
    for j in range(T):
        other = (ids + 1) % V  # the next token of the vocabulary: never the same one
        changed = np.where(np.arange(T) == j, other, ids)  # all other tokens as they were
        # Bit for bit: a mask of −20, say, leaves a leak of e⁻²⁰, which no tolerance would show.
        differs = model(changed) != before  # (N, T, V)
        reads[:, j] = differs.any(axis=(0, 2))  # (T,): at which positions any logit of any text has changed
    return reads
    # A causal model: True on the diagonal and below it, False above, as in np.tri(T).


def draw(rng, size):
    """Causal, except for one look ahead, as faint as through a mask of −20, and for two blind spots. Each token of a
    small vocabulary fills one column of ids: whichever somebody puts in everywhere, it was somewhere already."""
    T, V = size.T + 3, 7
    weights = np.tril(rng.uniform(0.5, 1.5, (T, T)))
    weights[1, 2] = 2e-9
    weights[2, 0] = weights[3, 1] = 0.0
    ids = rng.integers(0, V, (size.B, T))
    ids[:, :V] = 0, V - 1, 1, *range(2, V - 1)
    embedding = rng.normal(size=(V, size.C))
    head = rng.normal(size=(size.C, 1)) * rng.uniform(1, 2, V)  # a change moves all logits to the same side

    def model(ids):
        return weights @ embedding[ids] @ head

    return {"model": model, "ids": ids, "V": V}


def put_in(i, token):
    return i.right["reads"] & (i.ids != token).any(axis=0)


MISTAKES = {
    "reads": [
        ("where token 0 was there already, it is replaced by itself", lambda i: put_in(i, 0)),
        ("where the last token was there already, it is replaced by itself", lambda i: put_in(i, i.V - 1)),
        ("a faint change is taken for none: compare bit for bit", lambda i: np.tril(i.right["reads"])),
    ]
}

AFTER = """**Beyond the points.** Try your judge and your functions on the package's own base. Type this in:

    from lora_np.formats import load_pretrained
    from lora_np.model import forward

    params, config = load_pretrained()
    ids, record = np.array([[0, 11, 42, 7, 99]]), {}
    logits, _ = forward(params, ids, config, record=record)
    print(who_reads_whom(lambda ids: forward(params, ids, config)[0], ids, config.vocab_size).astype(int))

    x = embed(ids, params["tok_emb.weight"], params["pos_emb.weight"])
    h = layer_norm(x, params["blocks.0.ln1.weight"], params["blocks.0.ln1.bias"], config.layer_norm_eps)
    print(np.abs(h - record["blocks.0.ln1"]).max())

Go on from there. With two lines for a linear layer, and softmax and GELU from lesson 03, you have all parts of the
model. Some fifteen lines later you can compare your own logits with `logits`.
"""
