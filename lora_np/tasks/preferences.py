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
from .settings import Data, Dataset, refuse_unused
from .written import format_texts, written_texts

EVALUATED = 16  # pairs per batch, for computations without gradients
LONGEST = 2**30  # tokens; longer pairs are left out, not truncated


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
        refuse_unused(settings, self.task, dropout=0.0, lora_dropout=0.0)
        *sides, places = read_pairs(self.data)
        template = chat_template(model.files)
        sides = [chat_rows(side, model.tokenizer, template, LONGEST, places) for side in sides]
        if n_empty := sum(side.n_empty for side in sides):
            raise ValueError(f"data: {self.data}: {n_empty} answers have no prompt or no tokens, expected both")
        pairs = [tuple(map(last_answer, pair)) for pair in zip(*(side.rows for side in sides))]
        fitting = [pair for pair in pairs if max(len(ids) for ids, _ in pair) < settings.max_tokens]
        parts = [
            [fitting[i] for i in part] for part in split(stream(settings.seed, "sample").permutation(len(fitting)))
        ]
        for name, part in zip(PARTS, parts):
            if not part:
                reason = f"no {name} pair has at most {settings.max_tokens} tokens"
                raise ValueError(f"data: {self.data}: {reason}; add more or shorter pairs, or raise --max-tokens")
        pad = pad_id(model.tokenizer)
        train, validation, test = (with_references(model, part, pad) for part in parts)
        held_out, tested = (pair_batches(part, EVALUATED, pad=pad) for part in (validation, test))
        n = {name: len(part) for name, part in zip(PARTS, parts)} | {"left_out": len(pairs) - len(fitting)}

        def test_model(trained, history):
            results = preference_results(trained.params, trained.adapter, model.config, tested, self.beta)
            prompts = [ids[: np.argmax(targets != IGNORE_INDEX) + 1] for (ids, targets), *_ in test]
            return {**results, "written": written_texts(model, trained, prompts, settings.seed)}, {}

        return Dataset(
            model,
            partial(pair_batches, train, settings.batch_size, pad=pad),
            held_out,
            len(train),
            max(len(ids) for pair in parts[0] for ids, _ in pair),
            test_model,
            texts_per_row=2,
            test_base=lambda: {"pairs": n},
            loss=preference_loss(model.config, held_out, self.beta, settings.recompute),
        )

    def summary(self, results):
        n, change = results["pairs"], {name: results[name] for name in ("preferred", "rejected")}
        lines = [f"pairs: {n['train']:,} for training, {n['validation']:,} for validation, {n['test']:,} for testing"]
        if n["left_out"]:
            lines.append(f"      {n['left_out']} are left out, because they are too long")
        share = f"{round(results['in_order'] * n['test']):,} of {n['test']:,} test pairs"
        lines.append(f"the preferred text gained more than the rejected one in {share}")
        moved = ", ".join(f"{name} texts {nats:+.1f} nats" for name, nats in change.items())
        lines.append(f"mean change of the log probability: {moved}")
        if max(change.values()) < 0:
            lines.append("      Both became less probable, because DPO only increases their difference.")
        return [*lines, *format_texts(results["written"])]


def last_answer(row):
    """Ignore the targets before a conversation's last answer. A row is a pair of arrays (T,), ids and targets."""
    ids, targets = row
    learnt = targets != IGNORE_INDEX
    end = len(learnt) - np.argmax(learnt[::-1])
    before = np.flatnonzero(~learnt[:end])
    start = before[-1] + 1 if len(before) else 0
    return ids, np.where(np.arange(len(ids)) < start, IGNORE_INDEX, targets)


def pair_batches(pairs, batch_size, rng=None, pad=0):
    """Return an epoch's batches of pairs; see `class_batches`.

    A pair is (preferred, rejected, reference): two rows of ids and targets, and their log probabilities (2,).
    """
    longer = [max((ids for ids, _ in texts), key=len) for *texts, _ in pairs]
    batches = []
    for rows in (batch.rows for batch in class_batches(longer, np.zeros(len(pairs), int), batch_size, pad, rng)):
        flat = [text for i in rows for text in pairs[i][:2]]
        (ids, lengths), (targets, _) = map(pad_sequences, zip(*flat), (pad, IGNORE_INDEX))
        shaped = (array.reshape(len(rows), 2, *array.shape[1:]) for array in (ids, targets, lengths))
        batches.append(PairBatch(*shaped, np.array([pairs[i][2] for i in rows], np.float32), rows))
    return batches


def with_references(model, pairs, pad=0):
    """Add to each pair (preferred, rejected) the log probabilities of both texts before training."""
    reference = {}
    unknown = [(*pair, np.zeros(2)) for pair in pairs]
    for batch in with_bar(pair_batches(unknown, EVALUATED, pad=pad), "reading the pairs"):
        log_probs, _ = pair_log_probs(model.params, batch, model.config, model.adapter)
        reference.update(zip(batch.rows, log_probs))
    return [(*pair, reference[i]) for i, pair in enumerate(pairs)]


def preference_loss(config, held_out, beta, recompute=False):
    """Return the argument `loss` of `fine_tuning`, for DPO with batches of held-out pairs."""

    def loss(params, adapter):
        def evaluate(trainable):
            results = preference_results(*attach(params, adapter, trainable), config, held_out, beta)
            return {"loss": results["test_loss"]}

        return dpo_objective(params, config, adapter, beta=beta, recompute=recompute), evaluate

    return loss


def preference_results(params, adapter, config, batches, beta):
    """Compare the log probabilities of batches of pairs with those before training.

    Returns a dict: "in_order", the fraction of the pairs whose preferred text gained more than the rejected one;
    "preferred" and "rejected", the mean changes in nats; "test_loss", DPO's loss.
    """
    log_probs = np.concatenate([pair_log_probs(params, batch, config, adapter)[0] for batch in batches])  # (P, 2)
    reference = np.concatenate([batch.reference for batch in batches])
    change = log_probs - reference
    results = {"in_order": float(np.mean(change[:, 0] > change[:, 1])), "test_loss": dpo(log_probs, reference, beta)[0]}
    return results | dict(zip(("preferred", "rejected"), change.mean(axis=0, dtype=np.float64).tolist()))
