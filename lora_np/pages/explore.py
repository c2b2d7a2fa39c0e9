"""The explorer: an HTML page about an adapter, with precomputed values."""

import json
from pathlib import Path

from ..adapters import layer_arrays, module_config, scaling, trainable_report, trained_weights
from ..checked import check_unset, whole_number
from ..formats import attach_adapter, check_file, model_place, task_base, task_folder, task_places, write_text
from ..formats.task import base_name
from ..model import check_writes
from ..tasks.finetuning import naming_model, no_report
from ..tasks.settings import kind_of_base
from ..training import blas_threads, worthwhile_threads
from .assemble import page_text
from .explore_answers import by_scale_and_rank, language_tokens, spread, texts_of_table
from .explore_layers import directions_of, layer_rows

TEXTS, TEXTS_OF_LARGE = 200, 50  # default number of texts to measure losses on, for a small and for a large base
PROMPTS = ["The film", "You may not", "I would like to"]
TEXTS_TO_CLASSIFY = ["A wonderful surprise from the first minute to the last.", "It does not work, and nobody answers."]
N_FROM_DATA = 4  # default number of texts to classify from the data
DIGITS = 5  # significant digits of the values in the page


def explore(
    adapter,
    out,
    base=None,
    data=None,
    text_column=None,
    label_column=None,
    quoting=False,
    text_file=None,
    prompts=(),
    n_texts=None,
    chat=False,
    report=no_report,
):
    """Write the explorer, an HTML page about an adapter.

    Parameters
    ----------
    adapter : folder of a language model's or a classifier's adapter, or the name of an included adapter
    out : path of the page
    base : the new path of the adapter's base if the base has moved (see `read_model`), or None
    data : for a classifier, path of a CSV, TSV or JSONL file; losses are measured on equally spaced rows. None: no
        losses are measured
    text_column, label_column : str, or None for the columns that the classifier was trained with
    quoting : bool, for a TSV file; see `read_records`
    text_file : for a language model, path of a text file to measure losses on; the end of its last tenth is used,
        because `finetune` tests on that tenth. None: the held-out texts of an included adapter; for other adapters, no
        losses are measured
    prompts : list of str to continue or classify; if empty, a few built-in prompts, or texts from the data
    n_texts : int, maximum number of texts to measure losses on; None: 200, or 50 with a large base
    chat : bool, whether a language model answers the prompts using its chat template
    report : function, called before each computation with a line of text that describes it

    Returns
    -------
    dict, the data of the page

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or damaged, the adapter adapts no layer, an option does not apply to this kind of
        model, or `out` is an input file or cannot be written. Nothing is written in these cases.
    """
    if n_texts is not None:
        whole_number("texts", n_texts)
    if not all(prompt.strip() for prompt in prompts):
        raise ValueError("prompt: is empty, expected at least one word")
    check_file(out, "out", [*filter(None, (data, text_file)), *task_places(adapter, base)])
    base = task_base(adapter) if base is None else model_place(base)
    task = attach_adapter(adapter, base)
    if not layer_arrays(task.adapter):
        raise ValueError(f"adapter: {adapter} adapts no layer, only the head; expected at least one layer")
    n = n_texts or (TEXTS if kind_of_base(base) == "small" else TEXTS_OF_LARGE)
    if data is None:
        check_unset("needs --data", text=text_column, label=label_column, quoting=quoting or None)
    if task.labels is None:
        check_writes(task.config, "adapter")
        check_unset(f"{adapter} adapts a language model, expected a classifier; use --text-file", data=data)
        measured = language_tokens(adapter, task.tokenizer, text_file, n, report)
    else:
        why = f"{adapter} adapts a classifier, expected a language model; for a classifier, use --data"
        check_unset(why, text_file=text_file, chat=chat or None)
        measured = texts_of_table(adapter, task, data, text_column, label_column, quoting, n)
    if n_texts is not None and measured is None:
        raise ValueError("texts: needs --data or --text-file")
    with blas_threads(worthwhile_threads(task.params)), naming_model(adapter):
        page = page_data(task, base, measured, prompts, chat, report)
    page = {"name": task_folder(adapter).resolve().name, "base": Path(base_name(base, out)).name, **page}
    write_text(out, explorer(page))
    return page


def page_data(task, base, measured, prompts, chat, report):
    """Return the data of a page: a dict with the results of `facts`, `layer_rows` and `by_scale_and_rank`.

    `measured` is the result of `language_tokens` or `texts_of_table`; `task` is the loaded adapter and its base; the
    other parameters are those of `explore`.
    """
    report(f"decomposing ΔW of {len(layer_arrays(task.adapter))} layers")
    directions = directions_of(task.params, task.adapter)
    if not prompts and task.labels is not None:
        prompts = TEXTS_TO_CLASSIFY
        if measured is not None:
            prompts = [measured[1][row] for row in spread(len(measured[1]), N_FROM_DATA)]
    return {
        "facts": facts(task),
        "layers": layer_rows(task, directions),
        **by_scale_and_rank(task, directions, base, prompts or PROMPTS, chat, measured, report),
    }


def facts(task):
    """Return the values in the page's header, as lists where they may differ between layers."""
    config = task.adapter.config
    of_layers = [module_config(config, module) for module in layer_arrays(task.adapter)]
    trained = trainable_report(task.params, trained_weights(task.adapter))
    scales = {"alpha": [], "s": []}
    if config.kind != "vera":
        scales = {"alpha": sorted({each.alpha for each in of_layers}), "s": sorted(set(map(scaling, of_layers)))}
    counts = {"trained": trained.trainable, "percent": trained.percent}
    return {"kind": config.kind, "r": sorted({each.r for each in of_layers}), **scales, **counts, "labels": task.labels}


def explorer(data):
    """Return the page's text. All floats are rounded to DIGITS significant digits."""
    exact = json.dumps(data, allow_nan=False)
    rounded = json.loads(exact, parse_float=lambda digits: float(f"{float(digits):.{DIGITS}g}"))
    return page_text("explorer", ["drawing.mjs"], rounded)
