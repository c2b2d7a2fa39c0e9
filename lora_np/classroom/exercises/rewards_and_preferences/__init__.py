"""18. Rewards and preferences.

A language model is a policy π: it draws texts. GRPO makes texts with high rewards more probable, and DPO learns from
pairs of a preferred and a rejected text. You implement both losses and their gradients, which reach the model only
through the log probabilities of tokens.

The symbols are: `P` prompts or pairs, `G` completions of each prompt, `N` completions or positions, `T` tokens, `C`
columns, and `V` tokens in the vocabulary. Log probabilities are in nats. Every exercise starts from correct inputs, so
a mistake in one does not affect the next. Your gradient check from exercise set 03 can test all gradients.
"""

NEEDS = "your `cross_entropy_backward` from [exercise set 03](03_gradients_by_hand.ipynb), paper and a pencil"
TIME = "two hours in two sessions: a warm-up and the log probabilities; two losses and a report to assess"
QUESTION = """5. In words: a report of a success (5 points).

A colleague has trained the small base with GRPO to continue the beginnings of film reviews. The reward is the
probability of "positive" by a tf-idf classifier, which was trained on one half of the snippets. The report says:

> *In 24 steps, run A raised the mean reward from 0.42 to 1.00. To rule out that the model exploits the reward, we
> asked an independent judge, a classifier trained on the other half of the snippets. It gives A's texts 1.00 as well
> (0.59 before training), so the model has learnt to write good reviews. Run B, with a penalty, reached a reward of only
> 0.68. So penalties harm, and we recommend A's settings.*

| run | penalty β | reward | divergence from the base, nats per token | distinct bigrams |
|---|---:|---:|---:|---:|
| before training | | 0.42 | 0 | 0.93 |
| A, 12 steps | 0 | 0.98 | 2.2 | 0.55 |
| A, 24 steps | 0 | 1.00 | 6.4 | 0.24 |
| B, 24 steps | 0.2 | 0.68 | 0.15 | 0.90 |

One of A's texts is "great great and great good great excellent wonderful". Answer in about half a page:

1. What reveals that A's texts have collapsed? What does each piece of evidence show that the reward does not?
2. The judge has seen none of the snippets behind the reward. Why does it give 1.00 all the same?
3. Name two changes to the training, and say which numbers should show that they work.
4. What else would you measure, and on which texts?
5. Does the table show that the penalty harms? How would you compare A with B?
"""
ANSWER = """1. **The divergence, the distinct bigrams, and reading.** At 6.4 nats per token, A's tokens are typically
   exp(6.4) = 600 times as probable as under the base, so A no longer writes the base's language. Only 24 % of its pairs
   of neighbouring tokens are distinct, compared with 93 % before: it repeats itself. A reader sees at once that the
   texts are not reviews. The reward shows none of this, because a good review and a list of praise both get 1.00.
2. **It is independent of the reward's snippets, but not of its mistakes.** Both classifiers have learnt from people's
   reviews which words are positive, and neither has seen a list of such words. A text that exploits one therefore
   exploits the other. Their agreement shows that the texts are full of positive words, not that they are good.
3. Any two of these: a penalty β > 0; a lower learning rate or fewer steps; a limit on the divergence, at which training
   stops; a reward from which repeated bigrams are deducted (though this can be exploited, too). The divergence must
   remain far below 1 nat per token, and the distinct bigrams near 0.93, while the reward still rises above 0.42.
4. Draw 20 texts of each run, for prompts that were not used for training. Read them without knowing which run wrote
   them, and count the good reviews. Also measure the divergence and the distinct bigrams during training: A's had
   changed by step 12. Before you trust a judge, test whether it rejects a list of praise.
5. **No.** After the same number of steps, the run that is restrained least has the highest reward, so A had to win. B
   gained 0.26 at a divergence of 0.15, and its bigrams are almost as varied as before. Compare the rewards at equal
   divergence, for example with A's first steps, over several seeds. And compare the counts from question 4, not only
   the rewards.

*Marks:* one point for each question.
"""
