"""Directions of an update.

Training changes a weight by a matrix, ΔW, and nobody can read a matrix. So you measure it: how many directions, which
ones, shared with whom? Each measure of this set is a few lines, and each has fooled somebody. Ask of each: **what would
it say if there were nothing to find?** You may use `np.linalg.svd`, which gives `U`, the singular values, and `Vᵀ`.
"""

__all__ = ["ANSWER", "EXERCISES", "NEEDS", "POINTS", "QUESTION", "TIME"]
NEEDS = (
    "lesson 09 (`notebooks/09_directions_of_an_update.ipynb`), your `product_singular_values` from [exercises "
    "02](02_rank_and_svd.ipynb), paper and a pencil"
)
TIME = (
    "two and a half hours in two sittings: a warm-up of ten minutes, four measures, a hard one, and five claims "
    "to judge"
)
EXERCISES = (
    "stable_rank",
    "subspace_similarity",
    "chance_similarity",
    "amplification",
    "count_intruders",
    "adapter_directions",
)
QUESTION = """In words: five claims.

Here are five sentences from a report. Each has a number in it, and concludes more than the number says. Say for each,
in two or three sentences, why the conclusion does not follow, and name the **control**: what to measure beside it, and
what you would expect if the claim were wrong.

1. "Our two adapters share half of what they have learnt: φ(64, 64) = 0.52 on a layer with 128 inputs."
2. "Full fine-tuning's update has a stable rank of 1.4. So LoRA of r = 2, trained on the same data, will reach the same
   loss."
3. "LoRA's update amplifies by a factor of 12, full fine-tuning's by 0.5. So LoRA finds directions that `W` neglects,
   and full fine-tuning does not."
4. "The leading input direction of `q_proj`'s update is the same in two seeds, φ(1, 1) = 0.9, where chance has 0.004. So
   this is the direction that tells good reviews from bad."
5. "Our LoRA with α = 128 has six intruders, full fine-tuning none. So it is the low rank that makes intruders."
"""
ANSWER = """1. Chance alone gives 64/128 = 0.5: two adapters that have nothing in common would show the same. Control: φ
   of random subspaces of these sizes, and how far it scatters. And ask for fewer directions: φ(4, 4) has 4/128 = 0.03
   by chance, so something shared would show there.
2. The stable rank counts energy, and energy is not use: what the loss needs may be in weak directions. So first cut the
   update to two directions and measure the loss. Even if nothing is lost, the cut says that two directions are
   *enough*, not that training finds them when it may use only two, with other gradients and another learning rate.
   Control: train at r = 2 and at r = 16, and compare. (An update with shuffled labels also has a low stable rank.)
3. The factor has ‖ΔW‖ in its numerator: an update 24 times as large has a factor 24 times as large in the same
   directions. For both, compare the denominators, ‖Uᵀ W V‖, with that of random directions and that of W's own leading
   ones. If the claim is wrong, both updates are at about the same place between these two. In the lesson both were
   between, and nearer to chance.
4. The two seeds share more than the task: the same base, the same texts. `dW = dyᵀ x` can only find what is in the x,
   and a direction that is strong in all texts leads with any labels. Control: a training with shuffled labels.
   In the lesson it had q's leading direction as well, and not v's. What the control has as well is a mark of the texts.
5. Two things differ at once, the rank and the size: an intruder needs an update whose σ₁ can be among W's leading
   singular values, and α = 128 makes it large. Control: change only one. Scale LoRA's update to the norm of full
   fine-tuning's (or full's to LoRA's) and count again; train LoRA at several ranks, each at its own best learning rate.
   If the claim is wrong, the intruders go with the size. In experiment 7, r = 1 had fewer of them than r = 64.

*Marks:* one point for each claim: half for why it does not follow, half for a control with what it would show.
"""
POINTS = 5
