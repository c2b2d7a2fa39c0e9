"""Quantised and pruned.

`W` is (out, in), and `Ŵ`, "W hat", is what comes back from it; in code it is `W_hat`. Your results are in float64, like
the weights; codes are whole numbers of any dtype. Nothing here needs a loop over weights.
"""

__all__ = ["ANSWER", "EXERCISES", "NEEDS", "POINTS", "QUESTION", "TIME"]
NEEDS = "lesson 12 (`notebooks/12_quantised_and_pruned.ipynb`), [exercises 07](07_lora_layer.ipynb), a pencil"
TIME = "two hours in two sittings: a warm-up, four bits there and back, pruning, and LoRA on what is left"
EXERCISES = (
    "int8_quantise",
    "bits_per_weight",
    "nf4_quantise",
    "nf4_dequantise",
    "prune_n_of_m",
    "sparse_forward",
    "int8_lora_backward",
    "merge_back",
)
QUESTION = """In words: a plan for a small card.

A model has 6.45 billion weights in the linear layers of its blocks, and 0.13 billion others, which stay in float16. You
have a graphics card of **8 GB** (8 · 10⁹ bytes), and want to train a LoRA of rank 16 on all linear layers: 38 million
numbers in float32, with AdamW. A batch's activations take 1.5 GB.

1. Float16, int8 (8.01 bits per weight) or NF4 with double quantisation: with which of them in the linear layers does
   the *training* fit on the card? Give the sums, item by item.
2. "Prune half of the weights by magnitude instead," says Ada. "That halves the bytes, and in the lesson it lost 7 % of
   the energy, which is nothing." There are two mistakes in it. Which?
3. "Why LoRA at all?" asks Ben. "Four bits a weight, that is small enough to train directly. Let AdamW move the codes."
   Give him two reasons why not.
4. In the end you must hand over *one* file in NF4, with the adapter merged into it. The update is 2 % as long as
   `W`. What will happen? What do you measure first, and what do you offer instead?
"""
ANSWER = """1. Only NF4 fits. The adapter is the same in all three cases: 38 million numbers of 4 bytes are 0.15 GB, as
   much for the gradients, twice as much for AdamW's two moments: 0.61 GB. With the other weights (0.13 · 2 = 0.26 GB)
   and the activations (1.5 GB) that is 2.37 GB. The linear layers come on top:
   - float16: 6.45 · 2 = 12.90 GB, 15.3 GB in all;
   - int8: 6.45 · 8.01 / 8 = 6.46 GB, 8.8 GB in all: the *model* would fit, but training it does not;
   - NF4: 6.45 · 4.127 / 8 = 3.33 GB, 5.7 GB in all. (One layer at a time is made dense; there is room for it.)
2. Zeros take as many bytes as other numbers, unless a format leaves them out and says where they were; the half-empty
   matrix is as large as before. And 7 % is much: the loss rises with ‖E‖², for any kind of `E`, and NF4, which takes a
   quarter of float16's room, loses 0.9 %. In the lesson that was 0.10 nats against 0.02.
3. Rounding is a staircase: its slope is 0 on every stair, so no gradient tells the codes where to go. And a step of
   training is far smaller than a stair: rounded back to 16 points, nearly every weight has the code that it had. (If
   you keep float weights beside the codes to collect the small steps, then these, their gradients and their moments
   take 16 bytes a weight, and nothing is saved.)
4. The update will be swallowed. Rounding to NF4 moves the weights by 9 % of their length, the update by 2 %; hardly a
   weight gets another code, and the file holds the base. First measure the loss on held-out text three times: base
   alone, adapter attached, merged file; and count the codes that have changed. Offer the base in NF4 with the adapter
   beside it, which loses nothing and costs 0.15 GB more; or a merged file in int8, whose steps are finer: in the lesson
   it lost 0.38 of the length of an update of that size, not all of it.

*Marks:* for the first question one point for what training needs and one for the verdicts; one for each of the others.
"""
POINTS = 5
