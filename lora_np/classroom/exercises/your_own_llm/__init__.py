"""15. Your own LLM.

You write the code around your own model: it decodes and encodes the model's weights, classifies texts, turns
conversations into targets and a loss, penalises repetitions, and converts an adapter for llama.cpp.

The symbols are: `N` texts, `T` tokens, `vocab` tokens in the vocabulary, `K` labels, `H` heads, head size `D`, and
LoRA's factor `B` (out, r). Every exercise starts from correct inputs, so a mistake in one does not affect the next.
"""

NEEDS = "your `cross_entropy_backward` from [exercise set 03](03_gradients_by_hand.ipynb), a pencil"
TIME = "90 minutes: a warm-up, six short exercises, and a question"
QUESTION = """8. In words: five sentences from a meeting (5 points).

A team of four builds help desks for small shops, with SmolLM2 and one adapter per shop. An adapter has rank 1, targets
the query and value projections, and has 57,600 parameters in float32. It is trained on 400 conversations, 160 kB of
text in total. The model takes 269 MB in float16 and 98 MB in Q4_1.

In a meeting you hear these five sentences. In about five sentences for each, say what is true, what is false, what must
be measured, and how.

1. "The adapter takes only 0.2 MB, so it cannot contain what customers wrote to the shop."
2. "It answers in the shop's tone, so it knows the shop's products."
3. "We test it on the conversations that it was trained on. Nearly all answers are good."
4. "After training we ship one merged model per shop. We have 300 shops."
5. "It knew the capital of France before training, so it will know it afterwards."
"""
ANSWER = """\
1. **The size is correct, but the conclusion is false.** 57,600 parameters of 4 bytes take 230 kB, more than all the
   text, and a telephone number needs only 5 bytes. The loss covers only the answers, but answers repeat names and order
   numbers. To measure what the adapter contains, put some invented numbers into the answers before training. After
   training, compare their loss with that of new numbers in the same sentences, and let the model complete the
   beginnings of real answers: how many does it reproduce word for word? Until then, treat the adapter as confidentially
   as the conversations. Better still, remove names and numbers before training.
2. **It does have the tone, but the tone is no evidence of knowledge.** All 400 answers have the tone, but each product
   occurs in perhaps two of them. A fluent incorrect answer sounds like a correct one. To measure the knowledge, ask 50
   questions about products, none of them from the conversations, and let someone who knows the shop count correct,
   incorrect and invented answers, with and without the adapter. If too many are incorrect, put the product's page into
   the prompt, and count again.
3. **It shows that training has worked, but not how the model answers new questions.** On these conversations the loss
   falls in every epoch, even if the model only memorises them. Before training, hold some out: keep all conversations
   of one customer, and all near-duplicates, in the same split. Choose the learning rate and the number of epochs on a
   validation split, and use a separate test split only once. Report the uncertainty: 34 good answers out of 40 are 85
   %, with a standard error of √(0.85 · 0.15 / 40), or 5.6 points.
4. **It is true that a merged model takes no extra time. But it takes memory.** In float16, 300 models take 81 GB. One
   base in Q4_1 and 300 adapters take 98 + 300 · 0.23 = 167 MB, and one running base can serve all shops, applying each
   shop's own adapter to its texts. 300 models in Q4_1 would take 29 GB, and rounding may cancel the update: on
   held-out conversations, compare the merged file with the base plus a separate adapter. Also measure the time per
   token with an unmerged adapter. A merged model suits a shop with its own machine.
5. **False. It is only true that the base has not changed:** without the adapter, it answers as before. With the
   adapter, the queries and values of all layers change, for every question. To measure what is lost, ask a fixed list
   of general questions before and after training, with greedy decoding, and compare the loss on general text. If too
   much is lost, train for fewer steps, mix general conversations into the training data, give the adapter a smaller
   weight, or use it only for the shop's questions.

*Marks:* one point for each sentence: half for the verdict, half for a measurement that could refute it.
"""
