"""8. Half a block (5 points).

This is the entire attention half, from `x` to `y`:

    x ─┬───────────────────────────────────────────────(+)─→ y
       │        ┌─ q_proj ─┐                            │
       └─ ln1 ──┼─ k_proj ─┼─ attention ─── o_proj ─────┘
                └─ v_proj ─┘

You have written most of the parts yourself. The dictionary `back` maps the name of each part to its backward pass, a
function from the gradient of the part's output to that of its input, as in `d = back["o_proj"](d)`. One part has three
inputs: `dq, dk, dv = back["attention"](dcontext)`. All arrays are (N, T, C), so no shape will reveal a mistake.

**Draw it first**, with every arrow reversed and the name of the gradient on it. At which two points do arrows meet in
your drawing? Then write the function, from `dy` back to `dx`.

**When it passes:** suppose that only `q_proj` is trained, and everything else in this half and below it is frozen (see
`wanted` in lesson 06). Which of the six functions in `back` must you still call?
"""

import numpy as np

HINTS = {"dx": "Draw the half with its arrows and reverse each one. Where did one arrow split into two, or three?"}
FORMULA = """dq, dk, dv = back["attention"](back["o_proj"](dy))
dh = back["q_proj"](dq) + back["k_proj"](dk) + back["v_proj"](dv)
dx = dy + back["ln1"](dh)"""


def attention_half_backward(dy, back):
    """dy (N, T, C), back: dict of functions ln1, q_proj, k_proj, v_proj, attention, o_proj -> dx (N, T, C)."""
    # y = x + o_proj(context)
    dcontext = back["o_proj"](dy)  # (N, T, C)
    # context = attention(q, k, v)
    dq, dk, dv = back["attention"](dcontext)  # (N, T, C) each
    # h was used three times
    dh = back["q_proj"](dq) + back["k_proj"](dk) + back["v_proj"](dv)  # (N, T, C)
    # x was used twice: in the sum directly, and through ln1. If only q_proj is trained, the calls of o_proj and
    # attention are enough: they give dq, and nothing below is trained.
    return dy + back["ln1"](dh)  # (N, T, C)


def draw(rng, size):
    """Draw a linear map for each backward pass; those of attention also pass gradients to earlier positions."""
    names = ("ln1", "q_proj", "k_proj", "v_proj", "o_proj")
    W = {name: rng.normal(size=(size.C, size.C)) / np.sqrt(size.C) for name in names}
    back = {name: lambda d, W=W[name]: d @ W for name in names}
    mixed = np.triu(rng.normal(size=(3, 1, size.T, size.T)))
    back["attention"] = lambda d: tuple(mixed @ d)  # dq, dk, dv
    return {"dy": rng.normal(size=(size.B, size.T, size.C)), "back": back}


MISTAKES = {
    "dy has gone through ln1, which is only in the branch": ('dy + back["ln1"](dh)', 'back["ln1"](dy + dh)'),
    "dq and dv are swapped: attention returns dq, dk, dv": ("dq, dk, dv = ", "dv, dk, dq = "),
}

AFTER = """**Beyond the points.** Lesson 06 recorded the real model's gradients. Your functions compute the same
gradients. Type this in and compare (the model is in float32, so a difference of a millionth is rounding error):

    from lora_np.formats import load_pretrained
    from lora_np.model import backward, forward

    params, config = load_pretrained()
    forward_record, backward_record = {}, {}
    logits, cache = forward(params, np.array([[0, 11, 42, 7]]), config, wanted=tuple(params), record=forward_record)
    backward(np.random.default_rng(0).normal(size=logits.shape).astype("float32"), cache, record=backward_record)
    probs, dprobs, dscores = (forward_record["blocks.0.attn.probs"],
                              backward_record["blocks.0.attn.probs"], backward_record["blocks.0.attn.scores"])
    print(np.abs(scores_backward(dprobs, probs) - dscores).max(), "of", np.abs(dscores).max())

Which of your other functions can you compare with the two records in the same way?
"""
