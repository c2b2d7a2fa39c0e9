"""08. Full fine-tuning and LoRA, side by side.

In the first session, you build the tools for a fair comparison: the input of the classification head, its accuracy, the
standard error of that accuracy, and the optimiser. In the second, you run your own comparison, and say what it shows
and what it does not.
"""

from .experiment import PARTS

NEEDS = "your `lora_backward` from [exercise set 07](07_lora_layer.ipynb), paper and a pencil"
TIME = "three hours in two sessions: first four short tasks and the optimiser, then a project with a written conclusion"
QUESTION = """8. Your conclusion (6 points).

Write it in about ten sentences, with the numbers from your table, for a colleague who has not seen the notebook. There
is one point each for:

1. the question, what you varied, what you kept fixed, and the number of seeds;
2. which rank you would choose for each of the two problems, and whether its lead is larger than the spread over the
   seeds;
3. how training loss and test loss change with r, and why they do not change in the same way. (What does it mean if a
   training loss is *below* the true weight's?)
4. when LoRA is better than full fine-tuning here, when it is worse, and which theorem implies that it must be worse;
5. what this does **not** show: which choices the result depends on, and what it tells you about real reviews;
6. one more experiment that could prove you wrong, and the result that you expect.
"""
ANSWER = """1. We asked which rank LoRA should have on one linear layer (24 inputs, 16 outputs) whose true change ΔW is
   known. We varied the rank of ΔW (2 or 16, same ‖ΔW‖) and the method: no adapter, LoRA with r = 1, 2, 4, 16, and full
   fine-tuning. For each of three seeds, all methods had the same 48 noisy rows and 200 steps of gradient descent at one
   learning rate.
2. For the planted rank 2 we choose r = 2: its test loss is 4.50 ± 0.06, that of the next best, r = 4, is 5.41 ± 0.27,
   and r = 2 leads for each seed. For the planted rank 16 we choose full fine-tuning, 7.16 ± 0.37, or r = 16, 7.45 ±
   0.50; no smaller rank comes close (r = 4: 18.68). The spread of either loss over the seeds is larger than the gap
   between them, but the losses vary together: full fine-tuning is ahead for all three seeds, by 0.1 to 0.4. Three seeds
   are few. Note that r = 16 trains 640 weights, while `W` has 384.
3. The training loss falls as the rank grows, from 11.49 to 1.92: whatever a small adapter can do, a larger one can do
   too. The test loss falls up to the planted rank and rises beyond it: 4.50, 5.41, 7.35. The true weight has a loss of
   3.9, all of it noise. A training loss of 1.92 is below that, so half of the noise in these 48 rows has been
   memorised. Other rows have different noise. The more weights are trained, the more noise is fitted.
4. LoRA is better where its rank is large enough for ΔW, but not much larger: 4.50, compared with full fine-tuning's
   7.59. It is worse where ΔW has more than r strong directions. By the Eckart–Young theorem, r = 4 must omit 12 of 16
   equal directions, which are 27 of the 36 units of energy. So the test loss is at least 27/2 + 3.9 = 17.4, with any
   number of steps and rows; we measured 18.68.
5. The result depends on our choices: ΔW's of an exact rank with equal singular values, few rows, much noise, a single
   linear layer, and one learning rate for all methods, tuned for none of them. For real reviews, it shows only that
   both outcomes are possible. The ΔW of real reviews was not planted; in lesson 08, either full fine-tuning or r = 8
   was ahead, depending on the seed.
6. Take ten times as many rows. If fitted noise is what separates r = 2 from full fine-tuning, the gap of 3.1 must
   shrink to about a tenth or less. If it does not, my third point is wrong. (We tried it: 4.03 and 4.18.)
"""
