"""14. Since GPT-2.

Llama replaces four parts of GPT-2. You implement each replacement and its backward pass.

The symbols are: `N` texts or rows, `T` tokens, `C` columns, `F` columns inside the MLP, head size `D`, `H` query heads,
`K` key and value heads, and `G = H / K` query heads for each key head. Every exercise starts from correct inputs, so a
mistake in one does not affect the next.
"""

NEEDS = "lessons 05 and 06 for the rest of the block, a pencil"
TIME = "90 minutes: four forward and backward passes, a count, and a question"
QUESTION = """10. In words: without training (4 points).

Someone gives you the weights of a trained GPT-2. You may compute new weights from them, and you may add biases to
Llama's linear layers. You may not train. The logits must not change, except for rounding.

Which of the four parts can you replace with Llama's: layer norm, learned positions, the MLP with GELU, attention with
`H` key heads? For each, explain in two to four sentences how to replace it, or why this is impossible.
"""
ANSWER = """\
1. **Layer norm: yes.** A layer norm is an RMS norm of `x − mean(x)`. So make sure that the mean is already 0: subtract
   the mean from each row of both embedding tables and, in `o_proj` and `down_proj`, from each column of `W` and from
   the bias. Then everything that is added to the residual stream has mean 0, and the outputs of the layer norms do not
   change. Move the layer norm's bias `b` into the biases of the next layers, by adding `W b`. To absorb the bias
   of the last norm, give the head a bias.
2. **Learned positions: no.** With RoPE, positions affect a score only through their distance, so without the
   position table, shifting the entire text by ten positions changes nothing. In GPT-2, a row of this table is added to
   `x`, and everything that reads `x` depends on that row, including values and MLPs.
3. **The MLP: no.** With a bias of 1 and zero weights in `up_proj`, SwiGLU is `silu(gate)`, a function of one variable
   like GELU, but a different one. `x · sigmoid(1.702 x)` can be built from `silu` and is within 0.02 of GELU, but it is
   not equal to it.
4. **Attention: only with K = H.** Then the two are identical. With fewer key heads, query heads that had different keys
   would have to share them. (The other direction always works: repeat the rows of `k_proj` and `v_proj`.)

*Marks:* one point for each part: half for yes or no, half for the reason.
"""
