"""Full fine-tuning and LoRA, side by side.

In the first sitting you make the tools of a fair comparison: what a classifier reads, how good it is, how sure you can
be of that, and what moves the weights. In the second you make a comparison of your own, and say what it shows and what
it does not.
"""

from .experiment import PARTS

__all__ = ["ANSWER", "EXERCISES", "NEEDS", "PARTS", "POINTS", "QUESTION", "TIME"]
NEEDS = (
    "lesson 08 (`notebooks/08_full_and_lora.ipynb`), your `lora_backward` from [exercises 07](07_lora_layer.ipynb), "
    "paper and a pencil"
)
TIME = "three hours in two sittings: four short tasks and the optimiser; a project with a conclusion to write"
EXERCISES = ("read_last", "accuracy", "standard_error", "paired_difference", "adamw_step", "fit_lora")
QUESTION = """Your conclusion.

Write it for a colleague who has not seen the notebook, in about ten sentences, with your table's numbers. One point
each for:

1. the question, what you varied, what you kept the same, and the number of seeds;
2. which rank you would take for each of the two problems, and whether its lead is larger than the scatter;
3. how training loss and test loss change with r, and why they do not agree. (What does it mean that a training loss is
   *below* the true weight's?)
4. when LoRA is better than full fine-tuning here, when it is worse, and which law says that it must be;
5. what this does **not** show: which choices of the experiment it depends on, and what it says about real reviews;
6. one more experiment that could prove you wrong, and what you expect of it.
"""
ANSWER = """1. We asked which rank LoRA should have on one linear layer (24 inputs, 16 outputs) whose true change ΔW is
   known. We varied the rank of ΔW (2 or 16, same ‖ΔW‖) and the method: no adapter, LoRA at r = 1, 2, 4, 16, full
   fine-tuning. In each of three seeds all methods had the same 48 noisy rows, and 200 steps of gradient descent at one
   rate.
2. For the planted rank 2 take r = 2: its test loss is 4.50 ± 0.06, the next one's, r = 4, is 5.41 ± 0.27, and r = 2
   leads in each of the seeds. For the planted rank 16 take full fine-tuning, 7.16 ± 0.37, or r = 16, 7.45 ± 0.50;
   nothing smaller comes near (r = 4: 18.68). Between these two the scatter is larger than the gap, but both share it:
   full is ahead in all three seeds, by 0.1 to 0.4. Three are few. And r = 16 trains 640 numbers, where `W` has 384.
3. The training loss falls with every rank, from 11.49 to 1.92: whatever a small adapter can do, a larger one can. The
   test loss falls as far as the planted rank and rises beyond it, 4.50, 5.41, 7.35. The true weight has 3.9, all of it
   noise. A training loss of 1.92 is below that, so half of the noise in these 48 rows has been memorised, and
   other rows have other noise. The more numbers are free, the more of it fits.
4. LoRA is better where its rank is enough for ΔW and not much more: 4.50 against full fine-tuning's 7.59. It is worse
   where ΔW has more strong directions than r. By Eckart–Young r = 4 must leave 12 of 16 equal directions, an energy of
   27 of 36: a test loss of at least 27/2 + 3.9 = 17.4, with any number of steps and rows; we find 18.68.
5. It depends on what we planted: ΔWs of an exact rank with equal singular values, few rows, much noise, a single linear
   layer, one learning rate for all methods, tuned for none. Of real reviews it says only that both outcomes are
   possible. Nobody planted the ΔW of reviews; in lesson 08 full fine-tuning and r = 8 changed places with the seed.
6. Take ten times as many rows. If fitted noise is what separates r = 2 from full fine-tuning, the gap of 3.1 has to
   shrink to about a tenth or less. If it stays, my third point is wrong. (Tried: 4.03 and 4.18.)
"""
POINTS = 6
