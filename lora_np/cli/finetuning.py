"""The command finetune, which trains a classifier or a language model on a user's own data."""

from argparse import RawDescriptionHelpFormatter
from shlex import quote

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
    tuning.formatter_class, tuning.epilog = RawDescriptionHelpFormatter, defaults_table()


def add_data_options(tuning):
    text = "a JSON file with settings, or an earlier run's task.json; options override them"
    tuning.add_argument("--config", "--settings", dest="settings", metavar="FILE", help=text)
    source = tuning.add_mutually_exclusive_group()
    text = """a CSV, TSV or JSONL file: texts and labels for a classifier; or, without --text and --label, conversations
    for a language model in the columns prompt and completion, or messages"""
    source.add_argument("--data", metavar="FILE", help=text)
    text = "a text file for a language model; texts are separated by empty lines or, if it has none, by line breaks"
    source.add_argument("--text-file", metavar="FILE", help=text)
    text = "a JSONL file for DPO, with the columns prompt, chosen and rejected"
    source.add_argument("--preferences", metavar="FILE", help=text)
    text = "prompts for GRPO, with --reward: the lines of a .txt file, or the column prompt of a JSONL file"
    source.add_argument("--prompts", metavar="FILE", help=text)
    text = """a function that returns a number for each text of a list. It is your own code, and is run without any
    restriction"""
    tuning.add("--reward FILE.py:FUNCTION", text)
    tuning.add("--group N", "completions per prompt in GRPO (default 8)")
    text = "weight of the divergence from the base (default 0.1 for pairs, 0.05 for rewards)"
    tuning.add("--beta P", text)
    tuning.add("--steps N", "number of GRPO's steps (default 50)")
    tuning.add("--new-tokens N", "maximum length of a completion in GRPO (default 32)")
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
    tuning.add("--rank R", "LoRA's rank", dest="r")
    tuning.add("--alpha A", "LoRA's alpha (default twice the rank)")
    text = f"""layers that LoRA adapts: q_proj k_proj v_proj o_proj up_proj down_proj, all-linear, or a pattern such as
    'blocks.0.*' (default {" ".join(TARGETS)})"""
    tuning.add("--targets LAYER …", text)
    tuning.add("--lora-dropout P", "dropout on the adapter's input (default 0)", dest="adapter_dropout")


def add_training_options(tuning):
    new = FinetuneSettings()
    tuning.add("--method", f"what to train (default {new.method})", choices=METHODS)
    tuning.add("--dropout P", f"the model's dropout (default {new.dropout:g})")
    tuning.add("--lr RATE", "peak learning rate", dest="learning_rate")
    tuning.add("--epochs N", "number of epochs")
    tuning.add("--batch-size N", "texts per step")
    tuning.add("--patience N", "stop after N evaluations (two per epoch) without a lower validation loss")
    text = "search for this long for a better rate, rank, number of epochs and, without --base, base"
    tuning.add("--minutes M", text, dest="minutes")
    tuning.add("--seed N", f"random seed (default {new.seed})")
    text = """model to start from: minilm, smollm2, pretrained (the included small base), a GGUF file, or a folder
    (default for a classifier: minilm if it is installed; otherwise pretrained)"""
    tuning.add("--base DIR", text)
    text = "for a GGUF file: dense arrays (default), or the file's blocks, which save memory at the cost of time"
    tuning.add("--weights", text, choices=WEIGHTS)
    tuning.add("--recompute", "recompute activations in the backward pass, to save memory", default=None)
    tuning.add("--threads N", "number of cores to use (default 1; all with a large base or an encoder)")
    text = """address of a Dask scheduler whose workers compute the batches' shards, with the same result as on this
    machine (extra: cluster)"""
    tuning.add("--dask ADDRESS", text)
    text = "truncate texts to N tokens, instead of reading longer ones in windows; the windows' length for --text-file"
    tuning.add("--max-tokens N", text)


def defaults_table():
    """The defaults that depend on the base and the task, as a table for `--help`."""
    tables = (
        {"classifier": ("small", "encoder", "large"), "text": ("small", "large"), "chat": ("large",)},
        {"preferences": ("small", "large"), "reward": ("small", "large")},
    )
    names = ["task: base", "--lr lora", "--lr full", "--lr head", "--epochs", "--batch-size", "--rank", "--max-tokens"]
    lines = ["defaults:"]
    for table in tables:
        columns = [names]
        for task, kind in ((task, kind) for task, kinds in table.items() for kind in kinds):
            of, rank = DEFAULTS[task][kind], RANKS[kind]
            rates = [f"{of.learning_rates[method]:g}" if method in of.learning_rates else "-" for method in METHODS]
            lowest, highest, _ = EPOCHS.get(task) or EPOCHS[kind]
            epochs = str(lowest) if lowest == highest else f"{lowest} to {highest}"
            tokens = str(of.max_tokens or "the model's")
            columns.append([f"{task}: {kind}", *rates, epochs, str(of.batch_size), str(rank), tokens])
        widths = [max(map(len, column)) for column in columns]
        rows = (map(str.ljust, row, widths) for row in zip(*columns))
        lines += [*("  ".join(row).rstrip() for row in rows), ""]
    lines[-1] = "small: the included base, for example; encoder: MiniLM; large: SmolLM2 and files of more than 50 MB"
    return "\n".join(lines)


def run_finetune(arguments):
    data, settings = read_run(arguments.settings, run_values(arguments))
    results = finetune(data, arguments.out, settings, print_now, arguments.minutes, arguments.dask)
    out = shown(arguments.out)
    following = f'; next: python -m lora_np predict --model {quote(out)} "TEXT"' if "labels" in results else ""
    print(*data.summary(results), f"saved in {out}{following}", sep="\n")


def run_values(arguments):
    """Return the command line's options as a dict that `read_run` accepts as its argument `changes`."""
    if not any((arguments.settings, arguments.data, arguments.text_file, arguments.preferences, arguments.prompts)):
        raise ValueError("data: got none, expected --data, --text-file, --preferences, --prompts or --config FILE")
    others = "out", "settings", "minutes", "dask"
    options = {n: v for n, v in options_of(arguments).items() if v is not None and n not in others}
    adapter = {name.removeprefix("adapter_"): options.pop(name) for name in ADAPTER_FIELDS if name in options}
    if adapter:
        options["adapter"] = adapter
    for source, task in (("text_file", "text"), ("preferences", "preferences"), ("prompts", "reward")):
        if source in options:
            options |= {"task": task, "data": options.pop(source)}
    question = options.get("question")
    if question is not None:  # on a separate line, unless it begins with white space
        options |= {"task": "question", "question": question if question[:1].isspace() else f"\n{question}"}
    return options
