"""Since GPT-2.

Four parts of GPT-2's block have been replaced in Llama's. You write each new part, and the way back through it.

The letters: `N` texts or rows, `T` tokens, `C` columns, `F` columns inside the MLP, `D` numbers in a head, `H` heads
of queries, `K` heads of keys and values, and `G = H / K` query heads for each of them. Every task is given right
inputs, so a mistake in one does not spoil the next.
"""

__all__ = ["ANSWER", "EXERCISES", "NEEDS", "POINTS", "QUESTION", "TIME"]
NEEDS = "lesson 14 (`notebooks/14_since_gpt2.ipynb`), lessons 05 and 06 for the rest of the block, a pencil"
TIME = "90 minutes: four parts with a warm-up each, a count, and a question"
EXERCISES = (
    "rms_norm",
    "rms_norm_backward",
    "rotate",
    "rotate_backward",
    "swiglu",
    "swiglu_backward",
    "repeat_heads",
    "repeat_heads_backward",
    "cache_bytes",
)
QUESTION = """In words: without training.

Somebody gives you the weights of a trained GPT-2. You may compute new weights from them, and you may give Llama's
linear layers biases. You may not train. The logits must not change, except for rounding.

Which of the four parts can you exchange for Llama's: layer norm, learned positions, the MLP with GELU, attention with
`H` heads of keys? For each, say how, or why it is impossible, in two to four sentences.
"""
ANSWER = """\
1. **Layer norm: yes.** A layer norm is an RMS norm of `x − mean(x)`. So make sure that the mean is 0 already: subtract
   from each row of both embedding tables its own mean, and from `o_proj` and `down_proj` the mean over their outputs
   (of each column of `W`, and of the bias). All that is added to the stream then has mean 0, and no layer norm
   notices. The bias `b` of the layer norm goes into the next layers' biases, as `W b`; behind the last norm, the head
   needs one.
2. **Learned positions: no.** A rotation gives scores that depend on the distance alone: without the table, the whole
   text may move by ten places and nothing changes. In GPT-2 the row of the table is a part of `x`, and everything that
   reads `x` reads it, including values and MLPs.
3. **The MLP: no.** With a bias of 1 and no weights in `up_proj`, SwiGLU is `silu(gate)`, one function of one number,
   but not GELU. `x · sigmoid(1.702 x)` comes close, to 0.02, and can be made from `silu`: close is not equal.
4. **Attention: only with K = H.** Then it is the same attention. With fewer heads of keys, query heads that had
   different keys would have to share one. (The other direction always works: repeat the rows of `k_proj` and
   `v_proj`.)

*Marks:* one point for each part, half of it for yes or no and half for the reason.
"""
POINTS = 4
