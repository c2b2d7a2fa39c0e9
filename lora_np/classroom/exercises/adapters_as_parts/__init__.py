"""11. Adapters as parts.

The letters are those of the lesson: `N` is the number of rows, and `vocab` is the number of tokens in the vocabulary;
`A` (r, in) and `B` (out, r) are an adapter's factors, `s` is its scale, and `ΔW = s B A` is its update. Keep two
questions in mind. **Which parts of an array belong together?** Each row has its own adapter, each token its own column,
each name its own weight. **What may be added up?** You may add updates, but neither factors nor norms.
"""

NEEDS = "including its optional sections, exercise 7 of [set 02](02_rank_and_svd.ipynb), a pencil"
TIME = "two and a half hours in two sessions: a warm-up, the nucleus, four tasks with adapters, and a hard one"
QUESTION = """8. In words: five customers (5 points).

A provider runs one base model on one machine, and each of its forty customers has an adapter of rank 16 on all linear
layers. Five of them write in. In two to four sentences for each, say what you would do, what it costs (in memory and in
arithmetic), and what may go wrong or must be measured.

1. "Our texts arrive in the same second as everybody else's. Must we wait until your machine has switched adapters?"
2. "The adapter knows our dialect well. But it is now bad at ordinary English, and we cannot afford another training
   run."
3. "We have two adapters, one for contracts and one for e-mails. Please combine them into one that can do both."
4. "You cut our mix of these two from rank 32 to 16 and told us that the error is only 0.18. On contracts the result is
   as good as before, but on e-mails it is worse than no adapter at all. Did you get the error wrong?"
5. "We have millions of texts a day, our own machine, and one adapter that never changes."
"""
ANSWER = """1. No. One batch may contain rows with different adapters: `x Wᵀ` is one product for all rows. Each row also
   gets the thin products of its own adapter, which add a tenth to the cost in a base like ours, and less in a wider
   one. Memory holds one base and forty adapters (each a few per cent of the base's size), not forty models. Nothing is
   copied, and nobody waits; a row's result does not depend on the other rows.
2. Turn the adapter down: use `W + w ΔW` with w between 0 and 1. That costs one number and no training, and w = 0
   restores the base exactly. Forgetting shrinks like w² and the gain only like w, so half the weight keeps more than
   half of the gain and causes only about a quarter of the forgetting. To find the best w, measure both losses at three
   weights on held-out texts.
3. Mix them: stack the `A`'s on top of each other, and put the `B`'s side by side. The result is exact and has rank 32,
   so it needs twice the memory and arithmetic of one adapter, which is still little compared with the base. But both
   adapters change the same activations, so the mix is not as good as the two specialists. If one update is much larger
   than the other, it drowns the smaller one out. So choose the weights on held-out texts of both kinds; the weights
   need not add up to 1. If you know which texts are contracts, it is better to choose an adapter row by row, as in 1.
4. The error is correct, but answers a different question. It is the norm of the discarded part relative to the update's
   norm. Truncation keeps the strongest directions, whichever task needs them: if the contracts' update is larger, most
   of the discarded part belonged to the e-mails. After truncation, measure both losses, not the error. Then either
   leave the mix at rank 32, which costs little, or truncate the two adapters before mixing, or give the contracts a
   smaller weight before you truncate the mix.
5. Merge: compute `W + s B A` once for each layer; after that, a row costs no more than in the base. As in set 10, this
   pays off after in · out / (in + out) rows, which arrive within minutes here. The price is a whole separate model in
   memory, and the base can no longer be recovered bit for bit (subtracting `s B A` again leaves rounding errors): keep
   both files.

*Marks:* one point for each customer: half for the advice, half for its cost and for what must be measured.
"""
