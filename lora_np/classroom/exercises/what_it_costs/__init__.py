"""What it costs.

Nothing is multiplied or trained here: **you count everything, from shapes alone.** `N` is the number of rows (all
tokens of a batch), `W` is (out, in), `A` is (r, in), `B` is (out, r), `u = x Aᵀ`. A product of matrices (a, b) (b, c)
costs 2 a b c FLOPs, as in the lesson, and only such products count. No two sizes are equal.

A formula of this kind is easily wrong by a factor, and looks right. So list the products or the arrays before you
write, one line for each, with its shape.
"""

__all__ = ["ANSWER", "EXERCISES", "NEEDS", "POINTS", "QUESTION", "TIME"]
NEEDS = "lesson 10 (`notebooks/10_what_it_costs.ipynb`), paper and a pencil"
TIME = "two hours in two sittings: a warm-up of ten minutes, four counts, a chain, and five runs to tell apart"
EXERCISES = ("adapter_parameters", "layer_flops", "merging_pays_from", "training_bytes", "kept_inputs", "chain_flops")
QUESTION = """In words: five runs without names.

Someone has counted a step of five runs, and lost the names. The model was the same each time (24 blocks, C = 2048, a
language model of 1.3 billion parameters, all in float32), and so were the batch (2 texts of 1,024 tokens) and the
optimiser (AdamW). (A TFLOP is 10¹² FLOPs, a GB 10⁹ bytes.)

| run | forward, TFLOP | backward, TFLOP | parameters, GB | gradients, GB | AdamW, GB | activations, GB |
|---|---:|---:|---:|---:|---:|---:|
| 1 | 5.635 | 0.458 | 5.111 | 0.006 | 0.013 | 0.55 |
| 2 | 5.657 | 6.047 | 5.133 | 0.028 | 0.028 | 9.94 |
| 3 | 5.635 | 5.994 | 5.111 | 0.006 | 0.013 | 7.50 |
| 4 | 5.629 | 11.257 | 5.105 | 5.105 | 10.210 | 9.96 |
| 5 | 5.635 | 5.990 | 5.111 | 0.006 | 0.013 | 7.11 |

The names: full fine-tuning; LoRA with r = 8 on all linear layers; LoRA with r = 8 on q and v of every block; LoRA with
r = 192 on q and v of the first block alone; LoRA with r = 192 on q and v of the last block alone.

1. Which run is which? For each, give the number that shows it, and why.
2. One number was copied wrongly. Which one, and what should it be?
3. Run 1 has half of run 3's FLOPs and a fourteenth of its activations, and trains as many numbers. Then why does
   anybody put adapters further down? What do these numbers not say?
4. The owner of run 3 takes r = 1 in place of r = 8, "to make it eight times faster". What do you tell her about the
   FLOPs, and about the seconds?
"""
ANSWER = """1. **Run 4** is full fine-tuning: as many bytes of gradients as of parameters, and a backward pass of twice
   the forward pass. **Run 2** is LoRA on all linear layers: the largest of the small gradients, and nearly all of the
   activations, because every layer keeps its input. The other three train equally many numbers (24 · 8 = 192), so
   gradients cannot tell them apart. **Run 1** has its adapters only in the last block: next to no backward pass, and
   next to nothing kept for it, because nothing below that block is trained. **Run 5** has them in the first block: the
   gradient must come down through all blocks, as in run 3, but only one block keeps its `h`. **Run 3** has q and v of
   every block: like run 5, and 23 times an `h` of 2,048 · 2,048 · 4 bytes = 0.017 GB more, which is the 0.39 GB between
   them. (It also has a few more FLOPs: the lowest adapters need no `du A`, and run 5 has no others.)
2. AdamW's 0.028 GB in run 2. It keeps two moments for each trained number, twice the gradients' bytes: 0.057 GB.
3. They say what a step costs, and nothing about what it achieves. With adapters only in the last block, the first 23
   blocks never change what they hand up; a task that needs other features there cannot be learnt. Whether a task does
   must be measured: train both, and compare losses or accuracies on held-out data, for the same FLOPs.
4. The thin products are a small part of the step: 0.019 of 11.6 TFLOP, counting six for each adapter. At r = 1 seven
   eighths of them are gone, and the step has 0.14 % fewer FLOPs. The forward pass and `dx` through the frozen weights
   stay, and do not depend on r. In seconds nothing will be seen: thin products wait for memory, and one of r = 8 takes
   hardly longer than one of r = 1. (The adapter's file is eight times smaller; that is what she gains.)

*Marks:* one point for each question; for the first, four runs with the number that shows them are enough.
"""
POINTS = 4
