"""10. What it costs.

You train nothing here: **you count FLOPs and bytes, from shapes only.** `N` is the number of rows (all tokens of a
batch), `W` is (out, in), `A` is (r, in), `B` is (out, r), and `u = x Aᵀ`. Count only the FLOPs of matrix products: the
product of (a, b) and (b, c) costs 2 a b c FLOPs, as in the lesson. In the checks, no two sizes are equal.

A cost formula can easily be off by a factor and still look plausible. So before you write code, list the products or
arrays with their shapes, one per line.
"""

NEEDS = "including its optional sections, paper and a pencil"
TIME = "two hours in two sessions: a ten-minute warm-up, four counts, a chain, and five runs to identify"
QUESTION = """7. In words: five runs without names (4 points).

Someone has counted the FLOPs and bytes of one training step for five runs, but lost the names of the runs. All runs
used the same model (a language model with 24 blocks, C = 2048, and 1.3 billion parameters in float32), the same batch
(2 texts of 1,024 tokens) and the same optimiser (AdamW). (A TFLOP is 10¹² FLOPs, and a GB is 10⁹ bytes.)

| run | forward, TFLOP | backward, TFLOP | parameters, GB | gradients, GB | AdamW, GB | activations, GB |
|---|---:|---:|---:|---:|---:|---:|
| 1 | 5.635 | 0.458 | 5.111 | 0.006 | 0.013 | 0.55 |
| 2 | 5.657 | 6.047 | 5.133 | 0.028 | 0.028 | 9.94 |
| 3 | 5.635 | 5.994 | 5.111 | 0.006 | 0.013 | 7.50 |
| 4 | 5.629 | 11.257 | 5.105 | 5.105 | 10.210 | 9.96 |
| 5 | 5.635 | 5.990 | 5.111 | 0.006 | 0.013 | 7.11 |

The runs are: full fine-tuning; LoRA with r = 8 on all linear layers; LoRA with r = 8 on q and v of every block; LoRA
with r = 192 on q and v of only the first block; LoRA with r = 192 on q and v of only the last block.

1. Which run is which? For each, give the number that identifies it, and explain why.
2. One number was copied incorrectly. Which one, and what should it be?
3. Run 1 trains as many weights as run 3, with half of its FLOPs and a fourteenth of its memory for activations. So why
   put adapters into lower blocks? What do these numbers not show?
4. The owner of run 3 uses r = 1 instead of r = 8, "to make it eight times faster". What do you tell her about the FLOPs
   and about the running time?
"""
ANSWER = """1. **Run 4** is full fine-tuning: its gradients take as many bytes as its parameters, and its backward pass
   costs twice the forward pass. **Run 2** is LoRA on all linear layers: of the four LoRA runs it has the largest
   gradients, and it stores nearly as many activations as run 4, because every layer stores its input. The other three
   train the same number of weights (24 · 8 = 192), so gradients cannot distinguish them. **Run 1** has adapters only in
   the last block: there is almost no backward pass, and almost nothing is stored for it, because nothing below that
   block is trained. **Run 5** has them only in the first block: the gradient must pass through all blocks, as in run 3,
   but only one block stores its `h`. **Run 3** has them in q and v of every block: it is like run 5, but stores 23 more
   arrays `h` of 2,048 · 2,048 · 4 bytes = 0.017 GB each, which explains the difference of 0.39 GB. (It also has a few
   more FLOPs: the lowest adapters need no `du A`, and run 5 has only those.)
2. AdamW's 0.028 GB in run 2 is incorrect. AdamW stores two moments for each trainable weight, twice the bytes of the
   gradients: 0.057 GB.
3. The numbers show the cost of a step, not what it achieves. With adapters only in the last block, the outputs of the
   first 23 blocks never change; a task that needs different features from these blocks cannot be learnt. To find out
   whether a task needs them, train both configurations, and compare losses or accuracies on held-out data for the same
   number of FLOPs.
4. The thin products are a small part of the step: 0.019 of 11.6 TFLOP, counting six products per adapter. With r = 1,
   seven eighths of this is saved, and the step has 0.14 % fewer FLOPs. The forward pass and `dx` through the frozen
   weights do not depend on r. The running time will hardly change: thin products are limited by memory bandwidth, so
   one with r = 8 takes barely longer than one with r = 1. (Her only gain: the adapter's file is eight times smaller.)

*Marks:* one point for each question; for the first, four runs, each with the number that identifies it, are enough.
"""
