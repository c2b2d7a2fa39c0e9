"""1. Warm-up: advantages (2 points).

For each of `P` prompts, the policy has drawn a group of `G` completions, and each completion has a reward. GRPO makes a
completion more probable if its reward is above its group's mean, and less probable if it is below. Compute the
**advantages**: the rewards minus their group's mean, divided by the sum of the group's standard deviation and 0.0001.
The rewards are a sample, so their variance divides by G − 1.

**Predict first:** what are the advantages of a group whose rewards are all equal? What would they be without the
0.0001? How do the advantages change if you multiply all rewards by 100 and add 3? What does each row add up to?
"""

HINTS = {"advantages": "Which rewards belong to one prompt? Are both the mean and the standard deviation theirs?"}
FORMULA = "advantages = (R − mean(R)) / (std(R) + 0.0001), row by row;  std² = Σ (R − mean(R))² / (G − 1)"


def advantages(rewards):
    """rewards (P, G) -> advantages (P, G)."""
    difference = rewards - rewards.mean(axis=1, keepdims=True)  # (P, G)
    spread = rewards.std(axis=1, ddof=1, keepdims=True)  # (P, 1)
    return difference / (spread + 0.0001)
    # A group of equal rewards has advantages of 0 (without the 0.0001, 0/0), so it teaches nothing. Multiplying by 100
    # and adding 3 changes hardly anything: the 3 cancels in the difference, and the 100 in the quotient, except for the
    # 0.0001. Each row adds up to 0: completions are compared only with each other.


def draw(rng, size):
    """Draw rewards between 0 and 1. In the second draw, all completions of one prompt have the reward 1."""
    rewards = rng.uniform(0.0, 1.0, (size.B, size.T)) ** 2
    if size.number == 1:
        rewards[rng.integers(size.B)] = 1.0
    return {"rewards": rewards}


MISTAKES = {
    "mean and standard deviation are those of all rewards, not of a group": ("axis=1, ", ""),
}
