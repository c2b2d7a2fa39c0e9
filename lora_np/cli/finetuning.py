"""The command finetune, which trains a classifier or a language model on a user's own data."""

from operator import itemgetter

from ..checked import shown
from ..tasks.finetuning import finetune, read_run
from ..tasks.label_words import QUESTION
from ..tasks.settings import DEFAULTS, EPOCHS, METHODS, RANKS, TARGETS, WEIGHTS, FinetuneSettings, offered_variants
from ..tasks.table import CLASS_WEIGHTS
from .shared import QUOTING, options_of, print_now

ADAPTER_FIELDS = ("variant", "r", "alpha", "targets", "adapter_dropout")


def add_commands(command):
    tuning = command("finetune", run_finetune, "train a classifier on your own table, or a language model on your text")
    add_data_options(tuning)
    add_adapter_options(tuning)
    add_training_options(tuning)


def add_data_options(tuning):
    tuning.add("--settings FILE", "a JSON file with settings, or an earlier run's task.json; options override them")
    source = tuning.add_mutually_exclusive_group()
    text = """a CSV, TSV or JSONL file: texts and labels for a classifier; or, without --text and --label, conversations
    for a language model in the columns prompt and completion, or messages"""
    source.add_argument("--data", metavar="FILE", help=text)
    text = "a text file for a language model; texts are separated by empty lines or, if it has none, by line breaks"
    source.add_argument("--text-file", metavar="FILE", help=text)
    tuning.add("--text COLUMN", "the text column in --data", dest="text_column")
    tuning.add("--label COLUMN", "the label column in --data", dest="label_column")
    tuning.add("--quoting", QUOTING, default=None)
    tuning.add("--out DIR", "folder to write", required=True)
    tuning.add("--test FILE", "a separate file to test on (default: a tenth of --data)", dest="test_data")
    text = "a separate file to select the best weights on (default: a tenth of --data)"
    tuning.add("--validation FILE", text, dest="validation_data")
    text = f"balanced: the rarer a class, the larger its weight (default {CLASS_WEIGHTS[0]})"
    tuning.add("--class-weights", text, choices=CLASS_WEIGHTS)
    tuning.add("--calibrate", "scale the probabilities to fit the validation set (temperature scaling)", default=None)
    text = f"""train the language model, without a new head, to answer with the label's name; each text is followed by
    a question on a separate line (default {QUESTION.strip()!r})"""
    tuning.add("--as-words QUESTION", text, dest="question", nargs="?", const=QUESTION)


def add_adapter_options(tuning):
    tuning.add("--variant NAME", f"variant of LoRA: {', '.join(offered_variants())} (default lora)")
    tuning.add("--rank R", "LoRA's rank (default {small}; {large} with a large base)".format(**RANKS), dest="r")
    tuning.add("--alpha A", "LoRA's alpha (default twice the rank)")
    text = f"""layers that LoRA adapts: q_proj k_proj v_proj o_proj up_proj down_proj, all-linear, or a pattern such as
    'blocks.0.*' (default {" ".join(TARGETS)})"""
    tuning.add("--targets LAYER …", text)
    tuning.add("--lora-dropout P", "dropout on the adapter's input (default 0)", dest="adapter_dropout")


def add_training_options(tuning):
    new = FinetuneSettings()
    pair = itemgetter("small", "large")
    (table, large_table), (text_file, large_text) = pair(DEFAULTS["classifier"]), pair(DEFAULTS["text"])
    tuning.add("--method", f"what to train (default {new.method})", choices=METHODS)
    tuning.add("--dropout P", f"the model's dropout (default {new.dropout:g})")
    rates = [", ".join(f"{name} {rate:g}" for name, rate in each.learning_rates.items()) for each in (table, text_file)]
    text = "peak learning rate (default: {} for a table; {} for a language model; lower with a large base)"
    tuning.add("--lr RATE", text.format(*rates), dest="learning_rate")
    text = "epochs (default {small}; {encoder} with an encoder; with a large base 1, or up to 4 for few texts)"
    tuning.add("--epochs N", text.format(**EPOCHS))
    text = f"""texts per step (default {table.batch_size}, or {text_file.batch_size} for a language model; with a large
    base {large_table.batch_size} or {large_text.batch_size})"""
    tuning.add("--batch-size N", text)
    tuning.add("--patience N", "stop after N evaluations (two per epoch) without a lower validation loss")
    text = "search for this long for a better rate, rank, number of epochs and, without --base, base"
    tuning.add("--minutes M", text, dest="minutes")
    tuning.add("--seed N", f"random seed (default {new.seed})")
    text = "model to start from: minilm, smollm2, a GGUF file, or a folder (default: the included base)"
    tuning.add("--base DIR", text)
    text = "for a GGUF file: dense arrays (default), or the file's blocks, which save memory at the cost of time"
    tuning.add("--weights", text, choices=WEIGHTS)
    tuning.add("--recompute", "recompute activations in the backward pass, to save memory", default=None)
    tuning.add("--threads N", "number of cores to use (default 1; all with a large base or an encoder)")
    text = f"""maximum number of tokens per text (default: the model's n_positions; with a large base at most
    {large_table.max_tokens}, or windows of {large_text.max_tokens} tokens for --text-file)"""
    tuning.add("--max-tokens N", text)


def run_finetune(arguments):
    data, settings = read_run(arguments.settings, run_values(arguments))
    results = finetune(data, arguments.out, settings, print_now, arguments.minutes)
    print(*data.summary(results), f"saved in {shown(arguments.out)}", sep="\n")


def run_values(arguments):
    """Return the command line's options as the `changes` for `read_run`."""
    if arguments.settings is None and arguments.data is None and arguments.text_file is None:
        raise ValueError("data: got none, expected --data FILE, --text-file FILE or --settings FILE")
    options = {
        n: v for n, v in options_of(arguments).items() if v is not None and n not in ("out", "settings", "minutes")
    }
    adapter = {name.removeprefix("adapter_"): options.pop(name) for name in ADAPTER_FIELDS if name in options}
    if adapter:
        options["adapter"] = adapter
    if "text_file" in options:
        options |= {"task": "text", "data": options.pop("text_file")}
    question = options.get("question")
    if question is not None:  # on a separate line, unless it begins with white space
        options |= {"task": "question", "question": question if question[:1].isspace() else f"\n{question}"}
    return options
