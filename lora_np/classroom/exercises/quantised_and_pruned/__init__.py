"""12. Quantised and pruned.

`W` is (out, in), and `Ŵ` (read "W hat", in code `W_hat`) is the dequantised weight. Return results in float64, like the
weights; codes may have any integer dtype. No exercise needs a loop over weights.
"""

NEEDS = "including its optional sections, [exercise set 07](07_lora_layer.ipynb), a pencil"
TIME = "two hours in two sessions: a warm-up, quantising to four bits and back, pruning, and LoRA on a compressed base"
QUESTION = """9. In words: a plan for a small graphics card (5 points).

A model has 6.45 billion weights in the linear layers of its blocks, and 0.13 billion others, which are kept in float16.
You have a graphics card with **8 GB** (8 · 10⁹ bytes) of memory, and want to train a LoRA adapter of rank 16 on all
linear layers with AdamW. The adapter has 38 million weights in float32. A batch's activations take 1.5 GB.

1. The linear layers can be stored in float16, int8 (8.01 bits per weight) or NF4 with double quantisation. With which
   of these formats does *training* fit on the card? List the memory that each item takes.
2. "Prune half of the weights by magnitude instead," says Ada. "That halves the bytes, and in the lesson it lost only 7
   % of the energy, which is nothing." Her claim contains two mistakes. What are they?
3. "Why LoRA at all?" asks Ben. "Four bits per weight are few enough to train directly. Let AdamW update the codes."
   Give him two reasons why this fails.
4. In the end you must deliver *one* file in NF4, with the adapter merged into it. The update's norm is 2 % of that of
   `W`. What will happen? What should you measure first, and what can you offer instead?
"""
ANSWER = """1. Only NF4 fits. The adapter needs the same memory in all three cases: 38 million weights of 4 bytes take
   0.15 GB, the gradients take as much, and AdamW's two moments take twice as much, 0.61 GB in total. With the other
   weights (0.13 · 2 = 0.26 GB) and the activations (1.5 GB), that is 2.37 GB. Add the linear layers:
   - float16: 6.45 · 2 = 12.90 GB, 15.3 GB in all;
   - int8: 6.45 · 8.01 / 8 = 6.46 GB, 8.8 GB in all: the *model* fits, but training it does not;
   - NF4: 6.45 · 4.127 / 8 = 3.33 GB, 5.7 GB in all. (Layers are dequantised one at a time; there is room for that.)
2. Zeros take as many bytes as other numbers, unless the format omits them and stores the positions of the non-zero
   weights. In any other format, the pruned matrix is as large as before. Also, 7 % is a lot: the loss rises with ‖E‖²,
   for any kind of error `E`. NF4, which takes a quarter of float16's memory, loses only 0.9 % of the energy. In the
   lesson, pruning raised the loss by 0.10 nats, and NF4 raised it by only 0.02.
3. Rounding is a step function: its slope is 0 almost everywhere, so the codes get no gradient. Also, a training step is
   far smaller than the distance between neighbouring points: after rounding to 16 points, nearly every weight still has
   its old code. (If you also keep float weights to accumulate the small steps, then these, their gradients and their
   moments take 16 bytes per weight, and nothing is saved.)
4. The update will be lost. Rounding to NF4 changes the weights by 9 % of their norm, but the update changes them by
   only 2 %. So hardly any code changes, and the file contains little more than the base. First measure the loss on
   held-out text for the base, the base with the adapter attached, and the merged file; and count the codes that have
   changed. Offer the base in NF4 with a separate adapter, which loses nothing and costs 0.15 GB more; or a merged file
   in int8, whose steps are finer: in the lesson, its rounding error was only 0.38 times the norm of an update of this
   size.

*Marks:* for the first question, one point for the items that training needs and one for the verdicts; one point for
each of the other questions.
"""
