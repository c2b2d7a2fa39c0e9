"""09. Directions of an update.

Training changes a weight by a matrix, ΔW, and nobody can read a matrix. So you measure it. How many directions does an
update have, what are they, and does another update share them? Each measure takes a few lines, and each has misled
someone. Always ask: **what would the measure show if there were nothing to find?** You may use `np.linalg.svd`, which
returns `U`, the singular values, and `Vᵀ`.
"""

NEEDS = (
    "including its optional sections, your `product_singular_values` from [exercise set 02](02_rank_and_svd.ipynb), "
    "paper and a pencil"
)
TIME = "two and a half hours in two sessions: a ten-minute warm-up, four measures, a hard one, and five claims to judge"
QUESTION = """7. In words: five claims (5 points).

Here are five claims from a report. Each concludes more than its numbers show. For each claim, say in two or three
sentences why the conclusion does not follow, and name the **control**: what else to measure, and which result you would
expect if the claim were wrong.

1. "Our two adapters share half of what they have learnt: φ(64, 64) = 0.52 on a layer with 128 inputs."
2. "Full fine-tuning's update has a stable rank of 1.4. So LoRA with r = 2, trained on the same data, will reach the
   same loss."
3. "LoRA's update amplifies by a factor of 12, full fine-tuning's by 0.5. So LoRA finds directions that `W` neglects,
   while full fine-tuning does not."
4. "The leading input direction of `q_proj`'s update is the same for two seeds: φ(1, 1) = 0.9, where 0.004 is expected
   by chance. So this is the direction that distinguishes good reviews from bad ones."
5. "Our LoRA with α = 128 has six intruders, full fine-tuning has none. So the low rank causes intruders."
"""
ANSWER = """1. Chance alone gives 64/128 = 0.5: two adapters that have nothing in common would show the same. Control:
   measure φ of random subspaces of these sizes, and its spread. Also compare fewer directions: for φ(4, 4) chance gives
   4/128 = 0.03, so shared directions would be visible there.
2. The stable rank measures energy, and energy is not usefulness: the loss may depend on weak directions. So first
   truncate the update to two directions and measure the loss. Even if nothing is lost, that only shows that two
   directions are *enough*. It does not show that training finds them when it may use only two, with different gradients
   and a different learning rate. Control: train at r = 2 and at r = 16, and compare. (An update trained with shuffled
   labels also has a low stable rank.)
3. The factor has ‖ΔW‖ in its numerator: if an update is 24 times as large in the same directions, its factor is 24
   times as large, too. For both methods, compare the denominator, ‖Uᵀ W V‖, with its value for random directions and
   for W's own leading ones. If the claim is wrong, both denominators lie at about the same point between these two
   values. In the lesson, both were nearer to chance.
4. The two runs share more than the task: they have the same base and the same texts. `dW = dyᵀ x` can only contain
   directions of x, and a direction that is strong in all texts is the leading one, whatever the labels. Control: train
   with shuffled labels. In the lesson, that run had the same leading direction for q, but not for v. A direction that
   the control shares comes from the texts, not from the labels.
5. Two things differ at once, the rank and the size: an intruder needs an update whose σ₁ is comparable with W's leading
   singular values, and α = 128 makes the update large. Control: change only one. Scale LoRA's update to the norm of
   full fine-tuning's (or vice versa) and count again; train LoRA at several ranks, each at its own best learning rate.
   If the claim is wrong, the number of intruders depends on the size, not on the rank. In the experiment on
   intruders, r = 1 had fewer than r = 64.

*Marks:* one point for each claim: half for why it does not follow, half for a control and its expected result.
"""
