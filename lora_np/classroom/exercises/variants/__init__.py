"""13. The variants.

The symbols are those of the lesson: `x` is (N, in), `W` is (out, in), `A` is (r, in), `B` is (out, r), `s` is the
scale, and `dy` is the gradient with respect to `y`. For every variant, first ask which symbol of
`y = x Wᵀ + b + s (x Aᵀ) Bᵀ` it changes. The order differs slightly from the lesson's: the hard exercise, DoRA's
gradient, comes last.
"""

NEEDS = "the SVD of `notebooks/02_rank_and_svd.ipynb`, a pencil"
TIME = "two and a half hours in three sessions: settings and VeRA; initialisations; DoRA and a claim to assess"
QUESTION = """9. In words: a claim to refute (5 points).

A colleague gives you this summary:

> *SwiftLoRA has rank 16, the scale α/√r with α = 16, PiSSA's initialisation, and four times the learning rate for B. On
> Rotten Tomatoes it reaches 78.9 % on the 1,000 test snippets, where LoRA (r = 8, α = 16, s = α/r) reaches 77.6 %; both
> are the best of five seeds. For LoRA we took the usual learning rate, 0.001. For SwiftLoRA we tried eight and report
> the one with the best test accuracy. Its adapter file is no larger than that of any LoRA of rank 16. So the new scale
> is worth 1.3 points, for free.*

1. Name five faults of this comparison, and say in one or two sentences for each why it matters.
2. Which plain LoRA (r and α) has the same rank and scale as SwiftLoRA?
3. In three sentences: which experiment would measure the effect of the scale?
"""
ANSWER = """1. Any five of these seven:
   - **Four things change at once**: rank, scale, initialisation, and B's learning rate. Which one gained 1.3 points?
   - **Rank 16 has twice as many trainable weights as rank 8.** There should at least be a LoRA run with r = 16.
   - **Eight learning rates against one.** With eight tries, a variant can beat an equally good method by luck, and
     0.001 may not suit LoRA here. Each method needs the same search.
   - **The learning rate was chosen by test accuracy.** Data used for selection no longer gives an unbiased
     measurement: the best of eight noisy results is biased upwards. Selection is what the validation split is for.
   - **The best of five seeds** reflects the spread of a method as much as its quality. Report the mean and standard
     deviation over the same seeds for both.
   - **The difference may be due to chance.** The standard error of an accuracy of 78 % on 1,000 snippets is √(0.78 ·
     0.22 / 1000), or 1.3 points, which is 13 snippets. (For two models on the same snippets, the standard error of
     the *difference* is about one point.)
   - **The file is not free**: a PiSSA adapter works only with `W_rest`, not with the original base. Either ship
     `W_rest` too, which is as large as the model, or convert the adapter to rank 32, which doubles the file's size.
2. LoRA with r = 16 and α = 64: SwiftLoRA has s = 16/√16 = 4, and 64/16 is 4 as well. At a fixed rank, "the new scale"
is only a different α.
3. Train LoRA with r = 16, α = 16 and with r = 16, α = 64, all else equal: the usual initialisation, one learning rate
   for both factors, the same seeds and batches. For each of the two, choose the learning rate on the validation split,
   from the same list. Then report the mean difference over at least five seeds with its confidence interval, using the
   test split only once.

*Marks:* for the first question, one point for two faults, two for four, three for five; one point for each of the
other questions.
"""
