"""One run of the dialect experiment: the base is taught a domain by one method."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...adapters import AdapterConfig, init_adapter, trainable_report
from ...data import Splits, corpus_digest, encode, load_licences, load_reviews, load_tokenizer, token_stream
from ...formats import PRETRAINED
from ...model import forward
from ...training import attach, blas_threads, language_loss, language_training, stream, train
from . import load_base

EVALUATIONS = 6  # along the way
VALIDATION_TOKENS = 4096  # of the domain, and of the reviews, at each evaluation along the way
OLD_TEST_REVIEWS = 200  # of IMDb's test split, which the base has never seen


@dataclass(frozen=True)
class DialectRun:
    """All that a run depends on.

    Parameters
    ----------
    domain : "critics" or "licences"
    method : "full", or "lora_r16" and the like for LoRA on all linear layers
    seed : int
    learning_rate : float, the peak
    epochs : int, passes over the domain's training text
    corpus : str, for "licences" `licences_digest()`: the texts are those of the installed packages, and a worker that
        has other texts refuses the run
    limit : at most so many tokens of each split, or None, for a quick look
    test : bool, read the test texts; False while learning rates are chosen
    """

    domain: str
    method: str
    seed: int
    learning_rate: float
    epochs: int
    corpus: str = ""
    limit: int | None = None
    test: bool = True

    def carry_out(self):
        """Carry out the run, on one thread.

        Returns
        -------
        numbers : dict; losses in nats per token, "new" on the domain and "old" on the reviews
        arrays : empty

        Raises
        ------
        FloatingPointError
            When training diverges; see `train`.
        """
        if self.domain == "licences" and self.corpus != licences_digest():
            raise ValueError(f"corpus: got {self.corpus!r}, the licence texts here have {licences_digest()!r}")
        base, config = load_base()
        domain, old = load_domain(self.domain, self.limit), load_domain("reviews", self.limit)
        before = {name: array.copy() for name, array in base.items()}
        adapter_config = adapter_of(self.method)

        def loss_of_old(params, adapter):
            return {"old": language_loss(params, config, old.validation[:VALIDATION_TOKENS], adapter)}

        start = init_adapter(base, adapter_config, stream(self.seed, "adapter")) if adapter_config is not None else None
        plan = language_training(
            base,
            config,
            start,
            domain.train,
            domain.validation[:VALIDATION_TOKENS],
            learning_rate=self.learning_rate,
            epochs=self.epochs,
            seed=self.seed,
            also=loss_of_old,
            evaluations=EVALUATIONS,
        )
        state = train(**plan)
        model, adapter = attach(base, start, state.best)
        report = trainable_report(base, state.best)
        history = {name: np.round(values, 6).tolist() for name, values in state.history.items()}
        numbers = {
            "trainable": report.trainable,
            "percent": report.percent,
            "validation_loss": float(state.history["eval_loss"].min()),
            "history": {name: history[name] for name in ("eval_step", "eval_loss", "eval_old")},
            "base_untouched": all(np.array_equal(base[name], before[name]) for name in before),
        }
        if self.test:
            with blas_threads(1):
                numbers["new"] = language_loss(model, config, domain.test, adapter)
                numbers["old"] = language_loss(model, config, old.test, adapter)
                numbers["removed_bit_for_bit"] = removal_restores(base, before, config, adapter, domain.test)
        return numbers, {}


def adapter_of(method):
    """The adapter of a method, on all linear layers with α = 2r; None: full fine-tuning."""
    if method == "full":
        return None
    r = int(method.removeprefix("lora_r"))
    return AdapterConfig(r=r, alpha=2.0 * r, targets=("all-linear",))


def label(method):
    """What a method is called in tables and figures."""
    return "full fine-tuning" if method == "full" else f"LoRA r={method.removeprefix('lora_r')}"


@lru_cache(maxsize=4)
def load_domain(name, limit=None):
    """The texts of a domain as Splits of token streams (N,): "critics", "licences", or "reviews", which the base knows.

    The critics' snippets are those of Rotten Tomatoes, without labels; the licences come with the installed packages.
    """
    tokenizer = load_tokenizer(PRETRAINED / "tokenizer.json")
    if name == "licences":
        splits = load_licences()
    elif name == "critics":
        splits = [split.texts for split in load_reviews("rotten_tomatoes")]
    else:
        reviews = load_reviews("imdb")
        splits = [[""], reviews.validation.texts, reviews.test.texts[:OLD_TEST_REVIEWS]]
    # A text has at least one token: what is beyond the limit need not be encoded.
    return Splits(*(token_stream(encode(tokenizer, list(texts)[:limit]))[:limit] for texts in splits))


@lru_cache(maxsize=1)
def licences_digest():
    """A digest of the licence texts of this machine."""
    return corpus_digest(load_licences())


def removal_restores(base, before, config, adapter, tokens):
    """Whether taking an adapter off gives the logits from before, bit for bit; None without an adapter."""
    if adapter is None:
        return None
    ids = tokens[: config.n_positions][None].astype(np.int64)  # (1, T)
    adapted, _ = forward(base, ids, config, adapter=adapter)
    removed, _ = forward(base, ids, config)
    fresh, _ = forward(before, ids, config)
    return bool(np.array_equal(removed, fresh) and not np.array_equal(adapted, removed))
