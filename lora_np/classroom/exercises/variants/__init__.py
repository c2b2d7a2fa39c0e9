"""The variants.

The letters are the lesson's: `x` is (N, in), `W` is (out, in), `A` is (r, in), `B` is (out, r), `s` is the scale, and
`dy` is the gradient of `y`. For every variant, ask first which symbol of `y = x Wᵀ + b + s (x Aᵀ) Bᵀ` it changes. The
order is not quite the lesson's: the hard one, DoRA's gradient, comes last.
"""

__all__ = ["ANSWER", "EXERCISES", "NEEDS", "POINTS", "QUESTION", "TIME"]
NEEDS = "lesson 13 (`notebooks/13_variants.ipynb`), the SVD of `notebooks/02_rank_and_svd.ipynb`, a pencil"
TIME = "two and a half hours in three sittings: settings and two vectors, starts, DoRA and a claim to judge"
EXERCISES = (
    "rslora_scale",
    "first_change",
    "lora_plus_moves",
    "vera_backward",
    "pissa_start",
    "loftq_start",
    "dora_forward",
    "dora_backward",
)
QUESTION = """In words: a claim to take apart.

A colleague hands you this summary:

> *SwiftLoRA has rank 16, the scale α/√r with α = 16, a start by PiSSA, and four times the learning rate for B. On
> Rotten Tomatoes it reaches 78.9 % on the 1,000 test snippets, where LoRA (r = 8, α = 16, s = α/r) reaches 77.6 %; both
> are the best of five seeds. For LoRA we took the usual learning rate, 0.001. For SwiftLoRA we tried eight and report
> the one with the best test accuracy. Its adapter file is no larger than that of any LoRA of rank 16. So the new scale
> is worth 1.3 points, for free.*

1. Name five things that are wrong with it, and say for each in one or two sentences why it matters.
2. Which plain LoRA has the same rank and the same scale as SwiftLoRA?
3. In three sentences: which experiment would show what the scale is worth?
"""
ANSWER = """1. Any five of these seven:
   - **Four things have changed at once**: rank, scale, start, B's learning rate. Which one brought the 1.3 points?
   - **Rank 16 against rank 8** is twice as many trained numbers. LoRA should at least have a run at r = 16.
   - **Eight learning rates against one.** A variant with eight tries is ahead of its equal by luck, and 0.001 need not
     suit LoRA here. Each method needs the same search.
   - **The rate was chosen by the test accuracy.** What was used for choosing does not measure any more: the best of
     eight noisy numbers is too high. That is what the validation split is for.
   - **The best of five seeds** shows the scatter of a method as much as its quality. Report the mean, with its spread,
     over the same seeds for both.
   - **The difference is about as large as chance.** The standard error of an accuracy of 78 % on 1,000 snippets is
     √(0.78 · 0.22 / 1000), 1.3 points: 13 snippets. (On the same snippets a *difference* is known to about one point.)
   - **"For free" and the file**: a PiSSA adapter fits `W_rest` and not the base that everyone has. Either `W_rest` goes
     with it, as large as the model, or the adapter becomes one of rank 32, and its file twice as large.
2. SwiftLoRA has s = 16/√16 = 4. LoRA has that at r = 16 with α = 64. At one rank, "the new scale" is only another α.
3. LoRA at r = 16 with α = 16 and with α = 64, all else alike: the usual start, one learning rate for both factors, the
   same seeds and batches. For each of the two the learning rate is chosen on the validation split, from the same list.
   Then the mean difference over at least five seeds with its interval, on the test split, once.

*Marks:* for the first question one point for two faults, two for four, three for five; one for each of the others.
"""
POINTS = 5
