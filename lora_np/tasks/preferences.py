"""Data for preference tuning with DPO: pairs of a preferred and a rejected answer."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from ..checked import check_fields, finite_number
from ..data import class_batches, pad_id, pad_sequences, read_pairs
from ..data.batches import IGNORE_INDEX
from ..formats import chat_rows, chat_template
from ..model import check_writes
from ..training import PairBatch, attach, dpo, dpo_objective, pair_log_probs, stream
from ..training.progress import with_bar
from .language import PARTS, split
from .settings import Data, Dataset
from .written import format_texts, written_texts

EVALUATED = 16  # pairs per batch, for computations without gradients


@dataclass(frozen=True)
class Preferences(Data):
    """A file of pairs (see `read_pairs`), split at random into 80 % training, 10 % validation and 10 % test pairs.

    Parameters
    ----------
    data : path of the file
    beta : float above 0, how strongly the model is kept close to the one before training; see `dpo`
    """

    beta: float = 0.1
    task = "preferences"

    def __post_init__(self):
        super().__post_init__()
        check_fields(self, finite_number, "beta", above=0)

    def read(self, model, settings):
        check_writes(model.config, "base")
        *sides, places = read_pairs(self.data)
        template = chat_template(model.files)
        chosen, rejected = (chat_rows(side, model.tokenizer, template, 2**30, places).rows for side in sides)
        pairs = [pair for pair in zip(chosen, rejected) if max(len(ids) for ids, _ in pair) <= settings.max_tokens]
        order = stream(settings.seed, "sample").permutation(len(pairs))
        parts = [[pairs[i] for i in part] for part in split(order)]
        for name, part in zip(PARTS, parts):
            if not part:
                reason = f"no {name} pair has at most {settings.max_tokens} tokens"
                raise ValueError(f"data: {self.data}: {reason}; add more or shorter pairs, or raise --max-tokens")
        batches_of = partial(pair_batches, pad=pad_id(model.tokenizer))
        references = [reference_of(model, batches_of(part, None, EVALUATED), len(part)) for part in parts]
        train, validation, test = (partial(batches_of, *of) for of in zip(parts, references))
        held_out, tested = validation(EVALUATED), test(EVALUATED)

        def loss(params, adapter):
            objective = dpo_objective(params, model.config, adapter, beta=self.beta, recompute=settings.recompute)

            def measure(trainable):
                attached = attach(params, adapter, trainable)
                return {"loss": dpo(*compared(*attached, model.config, held_out), self.beta)[0]}

            return objective, measure

        def test_model(trained, history):
            log_probs, reference = compared(trained.params, trained.adapter, model.config, tested)
            change = log_probs - reference
            results = {
                "preferred": float(np.mean(change[:, 0] > change[:, 1])),
                "change": dict(zip(("preferred", "rejected"), map(float, change.mean(axis=0)))),
                "test_loss": dpo(log_probs, reference, self.beta)[0],
            }
            prompts = [ids[: np.argmax(targets != IGNORE_INDEX) + 1] for (ids, targets), _ in parts[2]]
            return {**results, "written": written_texts(model, trained, prompts, settings.seed)}, {}

        n = {name: len(part) for name, part in zip(PARTS, parts)} | {"left_out": len(places) - len(pairs)}
        longest = max(len(ids) for pair in parts[0] for ids, _ in pair)
        epoch_batches = partial(train, settings.batch_size)
        return Dataset(
            model, epoch_batches, held_out, len(parts[0]), 2 * longest, test_model, lambda: {"pairs": n}, loss=loss
        )

    def summary(self, results):
        n, change = results["pairs"], results["change"]
        lines = [f"pairs: {n['train']:,} for training, {n['validation']:,} for validation, {n['test']:,} for testing"]
        if n["left_out"]:
            lines.append(f"      {n['left_out']} are left out, because they are too long")
        moved = ", ".join(f"the {name} text {nats:+.1f} nats" for name, nats in change.items())
        lines.append(f"prefers the preferred text in {100 * results['preferred']:.0f} % of the test pairs")
        lines.append(f"mean change of the log probability: {moved}")
        if max(change.values()) < 0:
            lines.append("      Both became less probable, because DPO only increases their difference.")
        return [*lines, *format_texts(results["written"])]


def pair_batches(pairs, reference, batch_size, rng=None, pad=0):
    """Return an epoch's batches of pairs; see `class_batches`. `reference` is (P, 2), or None if still unknown."""
    longer = [max((ids for ids, _ in pair), key=len) for pair in pairs]
    batches = []
    for rows in (batch.rows for batch in class_batches(longer, np.zeros(len(pairs), int), batch_size, pad, rng)):
        flat = [row for i in rows for row in pairs[i]]
        (ids, lengths), (targets, _) = map(pad_sequences, zip(*flat), (pad, IGNORE_INDEX))
        shaped = (array.reshape(len(rows), 2, *array.shape[1:]) for array in (ids, targets, lengths))
        batches.append(PairBatch(*shaped, np.zeros((len(rows), 2)) if reference is None else reference[rows], rows))
    return batches


def compared(params, adapter, config, batches):
    """Return the log probabilities of the texts of all pairs, and those of the reference, both (P, 2)."""
    found = [pair_log_probs(params, batch, config, adapter)[0] for batch in batches]
    return np.concatenate(found), np.concatenate([batch.reference for batch in batches])


def reference_of(model, batches, n):
    """Return the log probabilities of the texts of n pairs before training, (n, 2)."""
    reference = np.empty((n, 2), np.float32)
    for batch in with_bar(batches, "reading the pairs"):
        reference[batch.rows] = compared(model.params, model.adapter, model.config, [batch])[0]
    return reference
