"""Forward.

Every task is given right inputs, so a mistake in one does not spoil the next.

The letters are the model's: `N` texts of `T` tokens, `C` columns, `H` heads of `D = C / H` columns, `vocab` tokens in
the vocabulary. Two questions lead through the set. **Which shape does each array have?** Write it down before the line
that makes it. **What must stay the same?** Most tasks ask for a prediction: where it fails, there is a bug.
"""

__all__ = ["ANSWER", "EXERCISES", "NEEDS", "POINTS", "QUESTION", "TIME"]
NEEDS = "lesson 05 (`notebooks/05_forward.ipynb`), paper and a pencil"
TIME = "two hours in two sittings: a warm-up of ten minutes, attention step by step, a block, and two judges"
EXERCISES = ("embed", "layer_norm", "split_heads", "causal_scores", "attend", "block", "perplexity", "who_reads_whom")
QUESTION = """In words: what stays the same?

Here are four changes to a model like ours. For each, say what happens to the logits, and why, in two to four sentences.
(You may compute, but only after you have written your answer down.)

1. At one position, 5 is added to every number of `x`, before the first block. What happens to `h = ln1(x)`, to `x`
   after block 0, and to the logits?
2. In one layer, `q` is multiplied by 2 and `k` is divided by 2, at all positions.
3. In one layer, heads 0 and 1 change places: in the weights and biases of `q_proj`, `k_proj` and `v_proj`, the first D
   rows are exchanged with the next D. Nothing else is touched. What else must change, so that the logits stay the same?
4. `pos_emb` is all zeros, the model has **one** block, and two tokens in the middle of a text change places. What
   happens to the logits at the last position? And if the model has **two** blocks?
"""
ANSWER = """1. `h` stays: a layer norm subtracts each position's mean, and with it the 5. So the branches read what they
   always read, and add what they always added. In `x` itself the 5 stays, around all blocks. But `ln_f` is a layer norm
   too, and subtracts it before the logits are made. They stay (except for rounding). Nothing that reads the residual
   stream sees a constant in it.
2. They stay, even bit for bit, because 2 is a power of 2: only the product q_i · k_j is ever used, and the two factors
   cancel in it. This is the freedom of lesson 02, `B G` and `G⁻¹ A`: only the product has a meaning.
3. They change. Each head computes what the other computed before, so the two pieces of `context` have changed places.
   But `o_proj` reads each with the columns that were meant for the other. Exchange the first D **columns** of
   `o_proj.weight` with the next D as well, and nothing changes. Heads have no order of their own.
4. With one block they stay (except for rounding). Without positions, keys and values depend only on their tokens. The
   last position's query sees the same pairs of key and value as before, in another order, and a weighted sum has no
   order. (Its own token is the same as well.) With two blocks they change. In block 0 each position averages over the
   positions up to its own. For the two tokens that have changed places, and all between them, these are no longer the
   same tokens: the causal mask itself tells the order, and block 1 reads it.

*Marks:* one point for each change: half for what happens, half for why.
"""
POINTS = 4
