"""4. The targets that count (2 points).

A conversation is one row of `T` tokens, and `is_answer` is True for the tokens of an answer. (The token that ends an
answer is part of the answer.) The model reads `inputs`, that is, all tokens except the last. At each token of `inputs`,
the model must predict the next token. If the next token belongs to an answer, it is the target; all other targets are
−100 and do not count. Return `inputs` and `targets`.

**On paper first:** write down `inputs` and `targets` for `<user> Hi <end> <model> Hello <end>`, where the last two
tokens belong to the answer. At which token must the model predict `Hello`? **Predict:** what does the model not learn
if the last `<end>` does not count?
"""

import numpy as np

HINTS = {
    "inputs": "Which token has no next token? Must the model read the question?",
    "targets": "Input t is token t. Which token is its target, and which entry of is_answer decides whether it counts?",
}
FORMULA = "inputs = ids[:−1];  targets[t] = ids[t + 1] where is_answer[t + 1], and −100 elsewhere"


def answer_targets(ids, is_answer):
    """ids (T,), is_answer (T,) of bools -> inputs (T − 1,), targets (T − 1,)."""
    inputs = ids[:-1]  # (T − 1,)
    targets = np.where(is_answer[1:], ids[1:], -100)  # (T − 1,)
    return inputs, targets
    # inputs:   <user>  Hi    <end>  <model>  Hello
    # targets:  −100    −100  −100   Hello    <end>
    # The model must predict Hello at <model>, which is not part of the answer itself. If the last <end> does not count,
    # the model does not learn to stop.


def draw(rng, size):
    """Draw several questions and answers. The last token belongs to an answer only in the second draw, and the first
    token only in the third."""
    turns = [(0, 1, 0, 1, 0), (0, 1, 0, 1), (1, 0, 1, 0, 1, 0)][size.number]
    is_answer = np.repeat(np.array(turns, dtype=bool), rng.permutation([2, 3, 4, 5, 6, 7])[: len(turns)])
    return {"ids": rng.choice(49152, len(is_answer), replace=False), "is_answer": is_answer}


MISTAKES = {
    "the questions are removed, but the model must read them: only the loss ignores them": lambda i: {
        "inputs": np.where(i.is_answer[:-1], i.ids[:-1], -100)
    },
    "a target counts if its input is part of an answer, not if the target is": ("is_answer[1:]", "is_answer[:-1]"),
    "each token is its own target, instead of the next one": ("[1:]", "[:-1]"),
    "targets that do not count are 0, not −100": ("-100", "0"),
}
