"""A run of the dialect experiment: fine-tune a base on one domain with one method."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...adapters import AdapterConfig, adapter_deltas, init_adapter, linear_layers, trainable_report
from ...data import Splits, corpus_digest, encode, language_batches, load_licences, load_reviews, token_stream
from ...model import forward
from ...training import LANGUAGE_BATCH, attach, blas_threads, fine_tuning, language_loss, stream, train
from . import load_base

LENGTH = 128  # tokens per window
TRAINING = ("learning_rate", "epochs", "seed", "evaluations")  # fields of a run that are arguments of `fine_tuning`
VALIDATION_TOKENS = 4096  # in each evaluation during training
OLD_TEST_REVIEWS = 200  # from IMDb's test split, on which the small base was not trained


@dataclass(frozen=True)
class DialectRun:
    """The settings of a run of the dialect experiment; fields without a comment are as in `ClassifyRun`."""

    domain: str  # "critics" or "licences"
    method: str  # "full"; "lora_r16", for LoRA of rank 16 on all linear layers; or "lora_r16_qv", on q and v
    seed: int
    learning_rate: float
    epochs: int
    corpus: str = ""  # `licences_digest()` if the domain is the licences; a worker with different ones rejects the run
    base: str = "pretrained"
    batch_size: int = 16  # windows of LENGTH tokens per batch
    evaluations: int = 6  # approximate number of evaluations during training
    train_tokens: int | None = None  # maximum number of training tokens; None: `limit`
    limit: int | None = None  # maximum number of tokens of each split; None: all
    test: bool = True
    keep: bool = False

    def carry_out(self):
        """Carry out the run and return its numbers and arrays.

        Losses are in nats per token: "new" on the new domain, and "old" on reviews.
        """
        if self.corpus and self.corpus != licences_digest():
            raise ValueError(f"corpus: got {self.corpus!r}; this machine's licences have digest {licences_digest()!r}")
        base, config, *_ = load_base(self.base)
        domain, old = (load_domain(name, self.base, self.limit) for name in (self.domain, "reviews"))
        before = {name: array.copy() for name, array in base.items()}
        adapter_config = adapter_of(self.method)

        def loss_on(tokens, params, adapter):
            return language_loss(params, config, tokens, adapter, LENGTH)

        start = init_adapter(base, adapter_config, stream(self.seed, "adapter")) if adapter_config is not None else None
        tokens = load_domain(self.domain, self.base, self.train_tokens or self.limit).train
        validation = list(language_batches(domain.validation[:VALIDATION_TOKENS], LANGUAGE_BATCH, LENGTH))

        more = {name: getattr(self, name) for name in TRAINING}
        more["epoch_batches"] = lambda rng: list(language_batches(tokens, self.batch_size, LENGTH, rng))
        state = train(**fine_tuning(base, config, start, validation=validation, **more))
        model, adapter = attach(base, start, state.best)
        report = trainable_report(base, state.best)
        numbers = {
            "trainable": report.trainable,
            "percent": report.percent,
            "steps": state.step,
            "validation_loss": float(state.history["eval_loss"].min()),
            "moved": distance(base, model, adapter),
            "base_untouched": all(np.array_equal(base[name], before[name]) for name in before),
        }
        if self.test:
            with blas_threads(1):
                numbers["new"] = loss_on(domain.test, model, adapter)
                numbers["old"] = loss_on(old.test, model, adapter)
                numbers["removed_bit_for_bit"] = removal_restores(base, before, config, adapter, domain.test)
        return numbers, dict(state.best) if self.keep else {}


def adapter_of(method):
    """The configuration of a method's adapter, with α = 2r; None for full fine-tuning."""
    if method == "full":
        return None
    r, _, targets = method.removeprefix("lora_r").partition("_")
    return AdapterConfig(r=int(r), alpha=2.0 * int(r), targets=("q_proj", "v_proj") if targets else ("all-linear",))


def distance(base, model, adapter):
    """How far training moved the linear layers: ‖ΔW‖_F / ‖W‖_F over all of them."""
    names = [f"{layer}.weight" for layer in linear_layers(base)]
    deltas = adapter_deltas(base, adapter) if adapter else {name: model[name] - base[name] for name in names}
    moved, size = (
        sum(float(np.sum(np.square(of[name]))) for name in of) for of in (deltas, {n: base[n] for n in names})
    )
    return float(np.sqrt(moved / size))


@lru_cache(maxsize=8)
def load_domain(name, base="pretrained", limit=None):
    """Load the texts of a domain as Splits of token streams (N,), encoded with a base's tokenizer.

    The domains are "critics", Rotten Tomatoes' snippets without labels; "licences", the licences of the installed
    packages; and "reviews", long film reviews from IMDb.
    """
    if name == "licences":
        splits = load_licences()
    elif name == "critics":
        splits = [split.texts for split in load_reviews("rotten_tomatoes")]
    else:
        reviews = load_reviews("imdb")
        splits = [reviews.train.texts[:1], reviews.validation.texts, reviews.test.texts[:OLD_TEST_REVIEWS]]
    # Every text has at least one token, so the first `limit` texts are enough.
    tokenizer = load_base(base).tokenizer
    return Splits(*(token_stream(encode(tokenizer, list(texts)[:limit]))[:limit] for texts in splits))


@lru_cache(maxsize=1)
def licences_digest():
    """A digest of the licence texts on this machine."""
    return corpus_digest(load_licences())


def removal_restores(base, before, config, adapter, tokens):
    """Whether removing an adapter restores the previous logits bit for bit; None without an adapter."""
    if adapter is None:
        return None
    ids = tokens[:LENGTH][None].astype(np.int64)  # (1, T)
    adapted, _ = forward(base, ids, config, adapter=adapter)
    removed, _ = forward(base, ids, config)
    fresh, _ = forward(before, ids, config)
    return bool(np.array_equal(removed, fresh) and not np.array_equal(adapted, removed))
