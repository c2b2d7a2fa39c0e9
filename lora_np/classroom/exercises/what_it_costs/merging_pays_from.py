"""Does merging pay?

Training is over, and the model is in use: only forward passes are left. An adapter that is not merged costs a little
more for each row. Merging, `W + s B A`, costs once, and then nothing. From how many rows on does it pay? Give the
smallest whole number of rows at which merging has cost **fewer** FLOPs in total. (Only products of matrices count, as
always: adding to `W` and multiplying by `s` do not.)

**Predict:** if r doubles, does the number rise, fall, or stay? **Derive:** the FLOPs of both ways as functions of the
number of rows. Try 4096 × 4096 in your head: is one long text enough? And have you met this number before, in set 02?

**For the curious, when it is right:** a training step has 2,048 rows, say, and a layer is 256 × 256. Would it save
FLOPs to form `W + s B A` again in each step, and to use it forward and backward? Which of the six thin products would
then be gone, which not, and what would it cost in memory?
"""

POINTS = 3
OUTPUTS = ("rows",)
HINTS = {"rows": "What does B A cost, once? How much more does each row cost while the adapter is not merged?"}
FORMULA = """merging: 2 r in out, once; attached: 2 r (in + out) more for each row
rows = the smallest whole number above in · out / (in + out): r cancels"""


def merging_pays_from(n_in, n_out, r):
    """Whole numbers -> rows, a whole number."""
    merging = 2 * n_out * r * n_in  # B A: (out, r) (r, in), once
    more_a_row = 2 * r * (n_in + n_out)  # u = x Aᵀ and u Bᵀ, for each row; x Wᵀ is the same both ways
    return merging // more_a_row + 1  # the first whole number above the quotient, also where that is whole itself
    # r cancels: in · out / (in + out). For 4096 × 4096 that is 2048, so a long text is enough. It is also the rank at
    # which B and A have as many numbers as W: both times, r (in + out) is compared with in · out.
    #
    # In training: forward u Bᵀ would go, backward du A. But dA and dB read u and du, so four thin products stay. With
    # 2,048 rows, where 128 are enough, it saves FLOPs: two of six thin products, a small part of all. The price is an
    # array as large as W for each adapted layer, kept from the forward to the backward pass.


def draw(rng, size):
    """In the first draw both ways have cost the same after a whole number of rows, in the others after none."""
    n = int(rng.integers(20, 40))
    n_in, n_out = ((n, 2 * n + 1), (3 * n + 1, n))[size.number - 1] if size.number else (3 * n, 6 * n)
    return {"n_in": n_in, "n_out": n_out, "r": size.r}


MISTAKES = {
    "rows": [
        (
            "after this number of rows both ways have cost the same: merging has not cost fewer yet",
            lambda i: i.n_in * i.n_out / (i.n_in + i.n_out),
        ),
        (
            "adding s B A to W is counted, but only products of matrices count",
            lambda i: (2 * i.r + 1) * i.n_in * i.n_out // (2 * i.r * (i.n_in + i.n_out)) + 1,
        ),
        (
            "multiplying by s and adding to W are counted, but only products of matrices count",
            lambda i: (2 * i.r + 2) * i.n_in * i.n_out // (2 * i.r * (i.n_in + i.n_out)) + 1,
        ),
    ]
}
