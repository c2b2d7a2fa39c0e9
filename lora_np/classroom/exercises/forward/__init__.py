"""05. Forward.

Every exercise starts from correct inputs, so a mistake in one exercise does not affect the next.

The symbols are the model's: `N` texts of `T` tokens, `C` columns, `H` heads of `D = C / H` columns, `vocab` tokens in
the vocabulary. Keep two questions in mind. **What shape does each array have?** Write it down before you compute it.
**What must not change?** Most exercises ask for a prediction: code that contradicts a correct prediction is wrong.
"""

NEEDS = "paper and a pencil"
TIME = "two hours in two sessions: a warm-up of ten minutes, attention step by step, a block, and two checks"
QUESTION = """9. In words: what does not change? (4 points).

Here are four changes to a model like ours. For each, say in two to four sentences what happens to the logits, and why.
(You may run code, but only after you have written down your answer.)

1. At one position, 5 is added to every entry of `x` before the first block. What happens to `h = ln1(x)`, to `x` after
   block 0, and to the logits?
2. In one layer, `q` is multiplied by 2 and `k` is divided by 2, at all positions.
3. In one layer, heads 0 and 1 are swapped: in the weights and biases of `q_proj`, `k_proj` and `v_proj`, the first D
   rows are swapped with the next D. Nothing else changes. What else would have to change to keep the logits the same?
4. `pos_emb` is all zeros, the model has **one** block, and two tokens in the middle of a text are swapped. What happens
   to the logits at the last position? What if the model has **two** blocks?
"""
ANSWER = """1. `h` does not change: a layer norm subtracts each position's mean, and the 5 with it. So the branches read
   the same inputs and add the same outputs as before. `x` itself keeps the 5 through all blocks. But `ln_f` is also a
   layer norm, and subtracts the 5 before the logits are computed. The logits do not change (except for rounding).
   Nothing that reads the residual stream sees a constant offset.
2. The logits do not change: only the product q_i · k_j is ever used, and the two factors cancel in it. The logits are
   even bit-identical, because 2 is a power of 2. Lesson 02 had the same freedom, `B G` and `G⁻¹ A`: only the product
   matters.
3. The logits change. Each head computes what the other computed before, so the two parts of `context` are swapped. But
   `o_proj` reads each part with the columns that were meant for the other. If the first D **columns** of
   `o_proj.weight` are also swapped with the next D, nothing changes. The order of the heads is arbitrary.
4. With one block the logits do not change (except for rounding). Without position embeddings, keys and values depend
   only on their tokens. The last position's query is unchanged and sees the same pairs of keys and values, but in
   another order, and the order does not affect a weighted sum. With two blocks the logits change. In block 0 each token
   averages over all tokens up to its own position. For the two swapped tokens and all tokens between them, that is now
   a different set: the causal mask itself carries information about the order, and block 1 reads it.

*Marks:* one point for each change: half for what happens, half for why.
"""
