"""Your own LLM.

You write what happens around a model of your own: its weights come out of the file, a text is judged, conversations
become targets and a loss, an answer stops repeating itself, and an adapter goes to llama.cpp.

The letters: `N` texts, `T` tokens, `vocab` tokens in the vocabulary, `K` labels, `H` heads, `D` numbers in a head, and
`B` (out, r) is LoRA's factor. Every task is given right inputs, so a mistake in one does not spoil the next.
"""

__all__ = ["ANSWER", "EXERCISES", "NEEDS", "POINTS", "QUESTION", "TIME"]
NEEDS = (
    "lesson 15 (`notebooks/15_your_own_llm.ipynb`), "
    "your `cross_entropy_backward` of [exercises 03](03_gradients_by_hand.ipynb), a pencil"
)
TIME = "90 minutes: a warm-up, six short tasks, and a question"
EXERCISES = (
    "q4_1_decode",
    "q4_1_encode",
    "label_probabilities",
    "answer_targets",
    "answer_loss",
    "repetition_penalty",
    "rows_for_llama_cpp",
)
QUESTION = """In words: five sentences from a meeting.

A team of four builds help desks for small shops: SmolLM2, and an adapter for each shop. An adapter has rank 1 on the
query and value projections, 57,600 numbers in float32. It was trained on 400 conversations, together 160 kB of text. In
float16 the model has 269 MB, in Q4_1 98 MB.

In a meeting you hear these five sentences. Say of each what is true, what is false, and what must be measured and
how, in about five sentences.

1. "The adapter has 0.2 MB, so it cannot contain what people wrote to the shop."
2. "It answers in the shop's tone, so it knows the shop's products."
3. "We test it on the conversations that it was trained on. Nearly all answers are good."
4. "After training we ship one merged model per shop. We have 300 shops."
5. "It knew the capital of France before, so it will know it after."
"""
ANSWER = """\
1. **The size is true, the conclusion is false.** 57,600 numbers of 4 bytes are 230 kB, more than all the text, and a
   telephone number needs 5 bytes. The loss counts answers alone, but answers repeat names and order numbers. Measure
   it: put some invented numbers into the answers before training. Afterwards compare their loss with that of other
   numbers in the same sentences, and let the model complete the beginnings of real answers: how many come back word for
   word? Until then the adapter is as confidential as the conversations. It is better to take names and numbers out
   before training.
2. **The tone is true, and it says nothing about knowledge.** The tone is in all 400 answers, a product perhaps in two.
   A fluent wrong answer sounds like a right one. Measure it: ask 50 questions about products, none of them from the
   conversations, and let somebody who knows the shop count right, wrong and invented answers, with the adapter and
   without. If too many are wrong, put the product's page into the prompt, and count again.
3. **It shows that training has worked, and not how the model answers new questions.** On these conversations the loss
   falls in every pass, even if the model only memorises them. Before training, set some aside: all conversations
   of a customer together, and near copies on the same side. Choose the learning rate and the number of passes on one
   such part, and test once on another. Say how sure you are: 34 good answers of 40 are 85 %, with a standard error of
   √(0.85 · 0.15 / 40), 5.6 points.
4. **It is true that a merged model costs no extra time. It costs room.** In float16, 300 models take 81 GB. One base in
   Q4_1 and 300 adapters take 98 + 300 · 0.23 = 167 MB, and one running base can serve all shops, each text with its own
   adapter. 300 models in Q4_1 would take 29 GB, and rounding may swallow the update: compare the merged file with base
   and adapter, on conversations that were set aside. Also measure the seconds per token with an adapter beside the
   base. A merged model suits a shop with a machine of its own.
5. **False. True is only that the base has not changed:** without the adapter, it answers as before. With it, the
   queries and values of all layers change, for every question. Measure it: ask a fixed list of general questions
   before and after, always choosing the most probable token, and compare the loss on a general text. If too much is
   lost, train fewer steps, mix general conversations into the training, turn the adapter down, or use it for the shop's
   questions alone.

*Marks:* one point for each sentence, half of it for what is true and false, half for a measurement that could show the
opposite.
"""
POINTS = 5
