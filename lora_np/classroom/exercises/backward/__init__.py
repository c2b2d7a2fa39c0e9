"""06. Backward.

Every exercise starts from correct upstream gradients, so a mistake in one exercise does not affect the next.

Notation: `N` texts of `T` tokens, `C` columns, `H` heads of `D = C / H` columns. Keep two questions in mind. **Where
did a value go in the forward pass?** Its gradient is the sum of the gradients that come back from there. **What shape
does each array have?** Write it down first: this prevents half of all mistakes.
"""

NEEDS = "your results from [exercise set 03](03_gradients_by_hand.ipynb), paper and a pencil"
TIME = "two hours in two sessions: a warm-up of ten minutes, attention step by step, and half a block at the end"
QUESTION = """9. In words: three biases (4 points).

The layers `q_proj`, `k_proj` and `v_proj` have biases, three vectors of length C that are added at every position:
`q = h Wqᵀ + bq`, and so on. Training gives them three very different gradients.

1. Lesson 06 says in a few words why the gradient of `k_proj.bias` is zero. Prove it from your own formulas: what does a
   row of `dscores` add up to, and where does that sum occur in the gradient of `bk`? Then explain it without formulas:
   what does `bk` do to the scores of one query?
2. The gradient of `q_proj.bias` is not zero. Where exactly does the same argument fail?
3. The gradient of `v_proj.bias` can be read off `dcontext` directly, without `probs`. What is it, and why?
"""
ANSWER = """1. A bias is added at every position, so the gradient of `bk` is the sum of `dk` over all positions j (and
   texts). In each head that is Σ_j Σ_i dscore_ij q_i / √D = Σ_i q_i / √D · (Σ_j dscore_ij). The bracket is the sum of
   row i of `dscores`, which is 0, because Σ_j probs_ij (dprobs_ij − average_i) = average_i − average_i. Without
   formulas: `bk` adds the same number, q_i · bk / √D, to all scores of query i, and a softmax does not change if the
   same number is added to all its inputs. So the loss does not depend on `bk`. (A program computes values near 0, which
   are rounding errors.)
2. The gradient of `bq` is Σ_i dq_i = Σ_j k_j / √D · (Σ_i dscore_ij), with sums down the *columns* of `dscores`. These
   need not be zero: each query's probabilities add up to 1, but a key may get a lot of attention or very little. `bq`
   adds bq · k_j / √D to score ij. This differs from key to key, so the probabilities do change.
3. It is the sum of `dcontext` over all texts and positions. The gradient of `bv` is Σ_j dv_j = Σ_i (Σ_j probs_ij) dO_i,
   and the bracket is 1. In the forward pass, `bv` is added to every value, so it is also added to every weighted
   average of values: `bv` arrives unchanged in `context` at every position.

*Marks:* two points for the first question (one for the proof, one for the explanation), and one for each of the others.
"""
