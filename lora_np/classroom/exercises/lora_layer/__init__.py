"""07. The LoRA layer.

Inputs and outputs are stored as rows: `x` is (N, in), `W` is (out, in), `A` is (r, in), `B` is (out, r), and `s = α/r`.
"""

NEEDS = "a pencil"
TIME = "60 to 90 minutes: a ten-minute warm-up, and three derivations"
QUESTION = """5. In words (4 points).

A colleague initialises both `A` and `B` with small random numbers, "so that both can learn from the first step". In
three to six sentences: what is true about this claim, what goes wrong, and how can one forward pass show this?
"""
ANSWER = """It is true that with `B = 0` only `B` moves in the first step: `dA` is `(s dy B)ᵀ x`, which is zero. But
this delay costs nothing, because from the second step on `B` is not zero and `A` moves as well. If both factors are
random, `ΔW = s B A` is not zero before the first step: the adapted model starts as the base plus a random update, which
training must first undo. One forward pass shows this: with `B = 0` the logits equal the base's bit for bit; with two
random factors they do not, and on the base's own training texts the loss is higher than the base's.

*Marks:* one point each for what is true, why there is no advantage, what goes wrong at the start, and the forward pass.
"""
