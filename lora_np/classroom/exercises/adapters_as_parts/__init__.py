"""Adapters as parts.

The letters are the lesson's: shapes (N, vocab) are `N` rows and the `vocab` tokens of the vocabulary; `A` (r, in) and
`B` (out, r) are an adapter's factors, `s` is its scale, and `ΔW = s B A` its update. Two questions lead through the
set. **Which parts of an array belong together?** Rows have their own adapters, tokens their own places, names their own
weights. **What may be added up?** Updates may. Factors and lengths may not.
"""

__all__ = ["ANSWER", "EXERCISES", "NEEDS", "POINTS", "QUESTION", "TIME"]
NEEDS = "lesson 11 (`notebooks/11_adapters_as_parts.ipynb`), task 7 of [02](02_rank_and_svd.ipynb), a pencil"
TIME = "two and a half hours in two sittings: a warm-up, the nucleus, four ways with adapters, a hard one"
EXERCISES = ("next_probabilities", "nucleus", "rows_forward", "mix", "best_weight", "update_cosine", "compress")
QUESTION = """In words: five customers.

A provider runs one base on one machine, and forty customers have an adapter each, of rank 16 on all linear layers. Five
of them write in. Say for each what you would do, what it costs (in memory and in arithmetic), and what may go wrong or
must be measured, in two to four sentences.

1. "Our texts arrive in the same second as everybody else's. Must we wait until your machine has changed adapters?"
2. "The adapter knows our dialect well. But it is now bad at ordinary English, and we cannot afford another training."
3. "We have two adapters, one for contracts and one for e-mails. Please make one of them that can do both."
4. "You have cut our mix of these two from rank 32 to 16, and written that the error is only 0.18. On contracts it is as
   good as before, on e-mails it is worse than no adapter at all. Is your error wrong?"
5. "We have millions of texts a day, a machine of our own, and one adapter that never changes."
"""
ANSWER = """1. No. One batch may hold rows with different adapters: the base's product is the same for all rows and is
   computed once. Each row gets the thin products of its own adapter on top, a tenth more in a base like ours, and less
   in a wider one. In memory there are one base and forty adapters of some per cent each, not forty models. Nothing is
   copied, and nobody waits; a row's result is what it would be alone.
2. Turn it down: `W + w ΔW` with w between 0 and 1. That costs one number and no training, and at w = 0 the base is back
   exactly. Forgetting shrinks like w² and the gain only like w, so half the weight keeps more than half of the gain for
   about a quarter of the forgetting. The best w must be measured: both losses at three weights, on held-out texts.
3. Mix them: the `A`'s on top of each other, the `B`'s side by side. That is exact, of rank 32, so it has twice the
   adapter's memory and arithmetic, still little beside the base. But they change the same activations, and the mix is
   not as good as the two specialists. If ‖ΔW‖ differs much, the longer one drowns the other: choose the weights on
   held-out texts of both kinds; they need not add up to 1. If you know of each text whether it is a contract, better
   choose an adapter row by row, as in 1.
4. The error is right, but answers another question. It says how long the error is beside the update, and the cut keeps
   the strongest directions, whoever needs them: if the contracts' update is the longer one, most of what was cut off
   belonged to the e-mails. Measure both losses after a cut, not the error. Then leave the mix at rank 32, which costs
   little, or cut the two adapters before mixing, or turn the contracts down in the mix first.
5. Merge: `W + s B A` once for each layer, and after that no row costs more than the base's. Set 10 says when it pays:
   after in · out / (in + out) rows, which is minutes here. The price is a whole model of their own in memory, and the
   base is no longer there bit for bit (subtracting `s B A` again leaves rounding): keep both files.

*Marks:* one point for each customer: half for what to do, half for the cost and what must be measured.
"""
POINTS = 5
