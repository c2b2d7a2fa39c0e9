"""02. Rank and singular values.

The symbols are those of the lesson: `W` and `M` are full matrices (out, in); `B` (out, r) and `A` (r, in) are thin
factors; `sigma` holds singular values in descending order. You may use loops, but you will hardly need them.
"""

NEEDS = "paper and a pencil"
TIME = "90 minutes: a ten-minute warm-up, five short exercises, a hard one, and five claims to assess"
QUESTION = """8. In words: five claims (5 points).

Here are five common claims about LoRA. For each, explain in two or three sentences why it is true, is false, or does
not follow. Add a measurement or a small example that would convince the speaker.

1. "After full fine-tuning, `np.linalg.matrix_rank` says that the change of our 1000 × 1000 weight has rank 1000. So no
   LoRA of rank 16 could have done the same."
2. "Two of us each trained an adapter on the same data, from different initial values. Our `A`'s have nothing in common.
   So the two adapters have learnt different things."
3. "Our `W` needs 150 directions for 90 % of its energy. LoRA with r = 16 throws most of that away."
4. "At r = 500, `B` and `A` have as many entries as a `W` of 1000 × 1000. So their product can be any matrix that `W`
   can be."
5. "The sum of a change of rank 8 and a change of rank 16 can be stored as one pair of factors with r = 24."
"""
ANSWER = """1. **Does not follow.** The rank counts every direction above rounding error, however weak, so a tiny
   component in each of the 1000 directions is enough for rank 1000. A LoRA of rank 16 must omit the energy beyond the
   16th direction (Eckart–Young), which may be little or much. Measure the energy share at k = 16. Better still,
   truncate the change to rank 16, add it to `W`, and measure the model's performance on its task. (Nor does a high
   energy share guarantee quality: the lesson's picture kept nearly 98 % of its energy, but its moon was not round.)
2. **Does not follow.** Factors are not unique: for any invertible `G` (r, r), `B G` and `G⁻¹ A` have the same product
   as `B` and `A`, but may have quite different entries. So compare the products (‖B₁ A₁ − B₂ A₂‖ / ‖B₁ A₁‖) or the two
   models' outputs. The adapters may still differ, but a comparison of only their `A`'s cannot show this.
3. **False.** LoRA discards no part of `W`: `W` is frozen and kept in full, and the layer's weight is `W` plus a change
   of rank 16. Only the change has limited rank. The sum can have full rank: try `np.linalg.matrix_rank(W + B @ A)`.
4. **False.** The factors have as many parameters as `W`, but can represent fewer matrices: the rank of `B A` is at most
   500, whatever their entries are. The identity matrix is out of reach: it has 1000 equal singular values, and the
   best `B A` of rank 500 contains only half of its energy. Many of the parameters are redundant: all pairs `B G`,
   `G⁻¹ A` give the same change, and `G` has 250,000 entries.
5. **True.** Put the two `B`'s side by side, (out, 24), and stack the two `A`'s, (24, in). Their product is the sum of 8
   + 16 outer products, column times row, which is the sum of both changes. The rank is *at most* 24: if the two changes
   share directions, it may be lower. (If you add a change of rank 8 to itself, the rank is still 8.)

*Marks:* one point for each claim: half for the verdict, half for a valid reason with a measurement or example.
"""
