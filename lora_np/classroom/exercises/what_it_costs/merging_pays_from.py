"""3. Does merging pay off? (3 points).

Training is over, and the model is in use, so only forward passes are left. An unmerged adapter costs a few extra FLOPs
for each row. Merging, `W + s B A`, costs FLOPs only once. At how many rows does merging start to pay off? Compute the
smallest number of rows for which merging costs **fewer** FLOPs in total than not merging. (As always, count only matrix
products: ignore adding to `W` and multiplying by `s`.)

**Predict:** if r doubles, does this number of rows rise, fall, or stay the same? **Derive** the FLOPs of both options
as functions of the number of rows. Work out the case of 4096 × 4096 in your head: does one long text have enough rows?
Where in exercise set 02 have you already seen this result?

**For the curious, when your code passes:** suppose that a training step has 2,048 rows and a layer is 256 × 256. Would
it save FLOPs to form `W + s B A` in each step, and to use it in the forward and backward passes? Which of the six thin
products would merging in each step save, which would remain, and how much memory would it cost?
"""

HINTS = {"rows": "How many FLOPs does B A cost? How many more FLOPs does each row cost if the adapter is not merged?"}
FORMULA = """merging: 2 r in out, once; not merging: 2 r (in + out) more for each row
rows = the smallest integer above in · out / (in + out), because r cancels"""


def merging_pays_from(n_in, n_out, r):
    """All arguments ints -> rows, an int."""
    merging = 2 * n_out * r * n_in  # B A: (out, r) (r, in), once
    more_a_row = 2 * r * (n_in + n_out)  # u = x Aᵀ and u Bᵀ, for each row; both options compute x Wᵀ
    return merging // more_a_row + 1  # the first integer above the quotient, even if the quotient is an integer
    # r cancels, which leaves in · out / (in + out). For 4096 × 4096 that is 2048, so a long text is enough. This is
    # also the rank at which B and A have as many entries as W: in both cases, a number times (in + out) is compared
    # with in · out. In training, merging would save u Bᵀ in the forward pass and du A in the backward pass. But dA and
    # dB need u and du, so four thin products remain. With 2,048 rows, far above the break-even of 128, merging saves
    # FLOPs, but only two of six thin products, a small part of the total. The price is an array as large as W for each
    # adapted layer, stored from the forward to the backward pass.


def draw(rng, size):
    """In the first draw, both options cost the same for one number of rows; in the other draws, for none."""
    n = int(rng.integers(20, 40))
    n_in, n_out = ((n, 2 * n + 1), (3 * n + 1, n))[size.number - 1] if size.number else (3 * n, 6 * n)
    return {"n_in": n_in, "n_out": n_out, "r": int(rng.integers(5, 20))}


MISTAKES = {
    "at this number of rows both options cost the same": ("// more_a_row + 1", "/ more_a_row"),
    "adding to W is counted, but only matrix products count": ("2 * n_out * r * n_in", "(2 * r + 1) * n_in * n_out"),
    "multiplying by s and adding to W are counted": ("2 * n_out * r * n_in", "(2 * r + 2) * n_in * n_out"),
    "x Wᵀ is counted as well, but both options compute it": ("2 * r * (n_in", "2 * n_in * n_out + 2 * r * (n_in"),
}
