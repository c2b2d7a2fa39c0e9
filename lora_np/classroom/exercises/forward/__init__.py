"""Forward.

Every task is given right inputs, so that a mistake in one does not spoil the next.

The letters are the model's: `B` texts, `T` tokens each, `C` columns, `H` heads of `D = C / H` columns, `V` tokens in
the vocabulary. Two questions lead through the whole set. **Which shape has each array?** Write it down before the
line that makes it. **What would have to stay the same?** Most tasks ask you to predict that, and a prediction that
fails has found a bug.
"""

NEEDS = "lesson 05 (`notebooks/05_forward.ipynb`), paper and a pencil"
TIME = "two hours in two sittings: a warm-up of ten minutes, attention step by step, a block, and two judges"
EXERCISES = ("embed", "layer_norm", "split_heads", "causal_scores", "attend", "block", "perplexity", "who_reads_whom")
QUESTION = """In words: what stays as it is?.

Four changes to a model like ours. Of each, say what happens to the logits, and why, in two to four sentences. (To
compute is allowed, after you have written your answer down.)

1. At one position, 5 is added to every number of `x`, before the first block. What happens to `h = ln1(x)`, what to `x`
   after block 0, what to the logits?
2. In one layer, `q` is multiplied by 2 and `k` is divided by 2, at all positions.
3. In one layer, heads 0 and 1 change places: in the weights and biases of `q_proj`, `k_proj` and `v_proj` the first D
   rows are exchanged with the next D. Nothing else is touched. What more would have to be done for the logits to stay?
4. `pos_emb` is all zeros, the model has **one** block, and two tokens in the middle of a text change places. What
   happens to the logits at the last position? And if the model has **two** blocks?
"""
ANSWER = """\
1. `h` stays: a layer norm takes each position's mean off, and the 5 is gone with it. So the branches read what they
   have always read, and add what they have always added. In `x` itself the 5 stays, on the way around, through all
   blocks; but `ln_f` is a layer norm too, and takes it off before the logits are made. They stay (except for
   rounding). A constant in the residual stream is invisible to all who read it.
2. They stay, even bit for bit, as 2 is a power of 2: only the product q_i · k_j is ever used, and the two factors
   cancel in it. It is the freedom of lesson 02, `B G` and `G⁻¹ A`: the single arrays mean nothing, their product does.
3. They change: each head computes what the other computed before, and so the two pieces of `context` have changed
   places, but `o_proj` reads each with the columns that were meant for the other. The first D **columns** of
   `o_proj.weight` have to be exchanged with the next D as well; then nothing changes. Heads have no order of their own.
4. With one block they stay (except for rounding). Without positions, keys and values depend on their tokens alone; the
   last position's query sees the same pairs of key and value as before, in another order, and a weighted sum has no
   order. (Its own token is the same, too.) With two blocks they change. In block 0 each position has averaged over what
   were at or before it, and for the two that have changed places, and all between them, that is not the same any more:
   the causal mask itself tells the order, and block 1 reads it.

*Marks:* one point for each change, half of it for what happens and half for why.
"""
POINTS = 4
