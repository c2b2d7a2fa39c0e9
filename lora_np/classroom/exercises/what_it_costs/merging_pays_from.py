"""Does merging pay?.

Training is over, and the model is in use: forward passes, nothing else. An adapter that stays apart makes each row a
little dearer. Merging, `W + s B A`, costs once, and then nothing. After how many rows has that paid off? Give the
smallest whole number of rows at which merging, all in all, has cost **fewer** FLOPs. (Products of matrices alone, as
always: adding to `W` and multiplying by `s` count nothing.)

**Predict:** if r doubles, does the number rise, fall, or stay? **Derive:** the FLOPs of both ways as functions of the
number of rows. Try it in your head for 4096 × 4096: is one long text enough? And have you met this number before, in
set 02?

**For the curious, when it is right:** a training step has 2,048 rows, say, and a layer of 256 × 256. Would it save
FLOPs to form `W + s B A` anew in each step, and to use it forward and backward? Which of the six thin products would
then be gone, which not, and what would it cost in memory?
"""

POINTS = 3
OUTPUTS = ("rows",)
HINTS = {"rows": "What does B A cost, once? And what does each row cost more, as long as the adapter stays apart?"}
FORMULA = """merging: 2 r in out, once; attached: 2 r (in + out) more for each row
rows = the smallest whole number above in · out / (in + out): r cancels"""


def merging_pays_from(n_in, n_out, r):
    """Whole numbers -> rows, a whole number."""
    merging = 2 * n_out * r * n_in  # B A: (out, r) (r, in), once
    more_a_row = 2 * r * (n_in + n_out)  # u = x Aᵀ and u Bᵀ, for each row; x Wᵀ is the same both ways
    return merging // more_a_row + 1  # the first whole number above the quotient, also where that is whole itself
    # r cancels: in · out / (in + out). For 4096 × 4096 that is 2048, so a long text is enough. It is also the rank at
    # which B and A have as many numbers as W: both times, r (in + out) is held against in · out.
    #
    # In training: forward u Bᵀ would go, backward du A. But dA and dB read u and du, so four thin products stay. With
    # 2,048 rows, and 128 enough to pay, it saves FLOPs: two of six thin products, and these are a small part of all.
    # The price is an array as large as W for each adapted layer, held from the way forward to the way back.


def draw(rng, size):
    """In the first draw both ways have cost the same after a whole number of rows, in the others after none."""
    n = int(rng.integers(20, 40))
    n_in, n_out = ((n, 2 * n + 1), (3 * n + 1, n))[size.number - 1] if size.number else (3 * n, 6 * n)
    return {"n_in": n_in, "n_out": n_out, "r": size.r}


MISTAKES = {
    "rows": [
        (
            "after so many rows both ways have cost the same: merging has not cost fewer yet",
            lambda i: i.n_in * i.n_out / (i.n_in + i.n_out),
        ),
        (
            "adding s B A to W is counted, but products of matrices alone count",
            lambda i: (2 * i.r + 1) * i.n_in * i.n_out // (2 * i.r * (i.n_in + i.n_out)) + 1,
        ),
        (
            "multiplying by s and adding to W are counted, but products of matrices alone count",
            lambda i: (2 * i.r + 2) * i.n_in * i.n_out // (2 * i.r * (i.n_in + i.n_out)) + 1,
        ),
    ]
}
