"""Rank and singular values.

The letters are the lesson's: `W` and `M` are full matrices (out, in); `B` (out, r) and `A` (r, in) are thin factors;
`sigma` holds singular values, the largest first. You may use loops, but you will hardly need them.
"""

__all__ = ["ANSWER", "EXERCISES", "NEEDS", "POINTS", "QUESTION", "TIME"]
NEEDS = "lesson 02 (`notebooks/02_rank_and_svd.ipynb`), paper and a pencil"
TIME = "90 minutes: a warm-up of ten, four short tasks, a hard one, and five claims to judge"
EXERCISES = (
    "adapter_size",
    "largest_saving_rank",
    "product_column",
    "truncate",
    "energy_share",
    "rank_at_energy",
    "product_singular_values",
)
QUESTION = """In words: five claims.

Here are five things that people say about LoRA. For each, say whether it is true, false, or does not follow, and why,
in two or three sentences. Add a measurement or a small example that would convince the speaker.

1. "We fine-tuned in full, and the change of our 1000 × 1000 weight has rank 1000, says `np.linalg.matrix_rank`. So no
   LoRA of rank 16 could have done it."
2. "Two of us trained an adapter on the same data, from different starts. Our `A`'s have nothing in common. So the two
   adapters have learnt different things."
3. "Our `W` needs 150 directions for 90 % of its energy. LoRA with r = 16 throws most of that away."
4. "At r = 500, `B` and `A` have as many numbers as a `W` of 1000 × 1000. So they can become any matrix that `W` can."
5. "The sum of a change of rank 8 and a change of rank 16 can be stored as one pair of factors with r = 24."
"""
ANSWER = """1. **Does not follow.** The rank counts every direction that is larger than rounding, however weak, so next
   to nothing in each is enough for 1000. What a LoRA of rank 16 must leave out is the energy beyond the 16th direction
   (Eckart–Young), and that may be little or much. Measure the energy share at k = 16. Better still, cut the change to
   rank 16, put it in, and see how well the model does its task. (Energy is not the task either: the lesson's picture
   with nearly 98 % of its energy had no round moon.)
2. **Does not follow.** Factors are not unique: for any invertible `G` (r, r), `B G` and `G⁻¹ A` have the same product
   as `B` and `A`, and may have quite different numbers. Compare the products, ‖B₁ A₁ − B₂ A₂‖ with ‖B₁ A₁‖, or what the
   two models say. The adapters may still differ; their `A`'s alone do not show it.
3. **False.** LoRA throws nothing of `W` away: `W` is frozen and stays there in full, and the layer's weight is `W` plus
   a change of rank 16. Only the change is limited. The sum can have full rank: try `np.linalg.matrix_rank(W + B @ A)`.
4. **False.** As many numbers, but not as many matrices: `B A` has a rank of at most 500, whatever its numbers are. The
   unit matrix is out of reach: it has 1000 equal singular values, and the best `B A` of rank 500 holds half of its
   energy. Many of the numbers are redundant: all pairs `B G`, `G⁻¹ A` are one change, and a `G` has 250,000 numbers.
5. **True.** Put the two `B`'s side by side, (out, 24), and the two `A`'s on top of each other, (24, in). Column by row,
   their product is the sum of 8 + 16 outer products, and that is the sum of both changes. The rank is *at most* 24: if
   the two have directions in common, it is less. (Add a change to itself: the rank stays 8.)

*Marks:* one point for each claim: half for the verdict, half for a reason that holds, with its measurement or example.
"""
POINTS = 5
