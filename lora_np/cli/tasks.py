"""Commands for a user's own files: finetune, predict, evaluate, mix, merge, export, import, inspect, doctor."""

import math
from pathlib import Path

from ..adapters import VARIANTS, AdapterConfig, layer_arrays, merge_errors, module_rank, variant_config
from ..checked import one_of, shown
from ..data import read_records
from ..formats import PRETRAINED, check_target, save_task, task_places
from ..formats.model import WEIGHTS
from ..formats.to_gguf import TYPES
from ..tasks.adapter_set import forward_times, load_adapter_set, merged, mixed
from ..tasks.classifier import CLASS_WEIGHTS, finetune
from ..tasks.doctor import base_place, diagnose
from ..tasks.doctor_table import format_diagnosis
from ..tasks.exchange import FORMATS, export, import_gguf, import_hf, import_peft
from ..tasks.inspection import format_inspection, inspect_file, sources_of
from ..tasks.labelling import TEXT_COLUMN, judge_file, label_records, text_records
from ..tasks.language_model import finetune_answers, finetune_text
from ..tasks.report import format_report
from ..tasks.start import is_large
from ..tasks.words import QUESTION
from .shared import check_unset, json_writer, print_now

OF_TABLE = ["text", "label", "test", "class_weights", "quoting", "as_words"]  # options of a table of labels alone
QUOTING = "in a TSV, quotes enclose cells (default: they are text)"
ADVICE = "  More texts of such a class help most; --class-weights balanced makes them count more."


def add_commands(command):
    tuning = command("finetune", run_finetune, "train a classifier on your own table, or a language model on your text")
    source = tuning.add_mutually_exclusive_group(required=True)
    text = """a CSV, TSV or JSONL file: texts and labels for a classifier; or without --text and --label conversations
    for a language model, with columns prompt and completion, or messages"""
    source.add_argument("--data", metavar="FILE", help=text)
    text = "a text, for a language model; separated by empty lines, or else by lines"
    source.add_argument("--text-file", metavar="FILE", help=text)
    tuning.add_argument("--text", metavar="COLUMN", help="the column of texts in --data")
    tuning.add_argument("--label", metavar="COLUMN", help="the column of labels in --data")
    tuning.add_argument("--quoting", action="store_true", default=None, help=QUOTING)
    tuning.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    tuning.add_argument("--test", metavar="FILE", help="a separate file to test on (default: a tenth of --data)")
    tuning.add_argument("--method", choices=("lora", "full", "head"), default="lora")
    text = f"of LoRA: {', '.join(offered_variants())} (default lora)"
    tuning.add_argument("--variant", default="lora", metavar="NAME", help=text)
    tuning.add_argument("--rank", type=int, metavar="R", help="LoRA's rank (default 8; 4 for a large base)")
    tuning.add_argument("--alpha", type=float, metavar="A", help="LoRA's alpha (default twice the rank)")
    text = """layers that LoRA adapts: q_proj k_proj v_proj o_proj up_proj down_proj, all-linear, or a pattern such as
    'blocks.0.*' (default all-linear)"""
    tuning.add_argument("--targets", nargs="+", metavar="LAYER", help=text)
    tuning.add_argument("--dropout", type=float, default=0.0, metavar="P", help="of the model (default 0)")
    tuning.add_argument("--lora-dropout", type=float, default=0.0, metavar="P", help="on the adapter's input")
    text = "balanced: a text counts the more, the rarer its class (default none)"
    tuning.add_argument("--class-weights", choices=CLASS_WEIGHTS, help=text)
    text = """train the language model to answer with the label's name after each text and a question on a line of its
    own (default 'Label:'), without a new head"""
    tuning.add_argument("--as-words", nargs="?", const=QUESTION, metavar="QUESTION", help=text)
    text = "peak learning rate (default depends on the method)"
    tuning.add_argument("--lr", dest="learning_rate", type=float, metavar="RATE", help=text)
    tuning.add_argument(
        "--epochs", type=int, metavar="N", help="(default 4; for a large base 1, or up to 4 if there are few texts)"
    )
    text = "(default 32; 16 for a language model or a large base, 8 for both)"
    tuning.add_argument("--batch-size", type=int, metavar="N", help=text)
    tuning.add_argument("--seed", type=int, default=0, metavar="N")
    text = "model to start from: smollm2, a GGUF file, or a folder (default: the shipped one)"
    tuning.add_argument("--base", metavar="DIR", help=text)
    text = "of a GGUF file: dense arrays (default), or blocks as in the file, for less memory and more time"
    tuning.add_argument("--weights", choices=WEIGHTS, help=text)
    text = "compute each block's activations twice, for less memory and more time"
    tuning.add_argument("--recompute", action="store_true", default=None, help=text)
    text = "processor cores to use (default 1; all for a large base)"
    tuning.add_argument("--threads", type=int, metavar="N", help=text)
    text = "read at most N tokens of a text (default: as many as the model can, and at most 512 with a large base)"
    tuning.add_argument("--max-tokens", type=int, metavar="N", help=text)

    predict = command("predict", run_predict, "classify new texts with a model from finetune")
    predict.add_argument("--model", required=True, metavar="DIR", help="the folder that finetune wrote")
    moved = "its base, if that has moved (default: the folder that it was trained on)"
    predict.add_argument("--base", metavar="DIR", help=moved)
    predict.add_argument("texts", nargs="*", type=str, metavar="TEXT", help="texts to classify")
    predict.add_argument("--data", metavar="FILE", help="a CSV, TSV or JSONL file of texts")
    predict.add_argument("--text", metavar="COLUMN", help="its column of texts (default: as in finetune)")
    predict.add_argument("--quoting", action="store_true", help=QUOTING)
    predict.add_argument("--proba", action="store_true", help="give the probability of every class")
    text = "write all columns, label and probability as .csv, .tsv or .jsonl"
    predict.add_argument("--out", metavar="FILE", help=text)

    judging = command("evaluate", run_evaluate, "compare a classifier with the labels of a file")
    judging.add_argument("--model", required=True, metavar="DIR", help="the folder that finetune wrote")
    judging.add_argument("--base", metavar="DIR", help=moved)
    judging.add_argument("--data", required=True, metavar="FILE", help="a CSV, TSV or JSONL file")
    judging.add_argument("--text", metavar="COLUMN", help="its column of texts (default: as in finetune)")
    judging.add_argument("--label", metavar="COLUMN", help="its column of labels (default: as in finetune)")
    judging.add_argument("--quoting", action="store_true", help=QUOTING)
    judging.add_argument("--json", metavar="FILE", help="also write the report as JSON")
    judging.add_argument("--out", metavar="FILE", help="draw the confusion matrix as a .png")

    mixing = command("mix", run_mix, "combine several adapters into one, their weighted sum")
    merging = command("merge", run_merge, "write a model with an adapter, or a mix of several, merged into its weights")
    for both in (mixing, merging):
        both.add_argument("adapters", nargs="+", metavar="DIR", help="folders of adapters, or names of shipped ones")
        both.add_argument("--weights", nargs="+", type=float, metavar="W", help="one per adapter (default: 1 each)")
        both.add_argument("--base", metavar="DIR", help="their base (default: the one that the first was trained on)")
        both.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    mixing.add_argument("--rank", type=int, metavar="R", help="reduce to this rank (default: the sum of the ranks)")
    merging.add_argument("--time", action="store_true", help="time a forward pass of the base and the merged model")

    exporting = command("export", run_export, "write files for transformers, PEFT or llama.cpp")
    exporting.add_argument("task", metavar="DIR", help="a folder from finetune, a model, or a shipped adapter's name")
    text = "; ".join(f"{name}: {what}" for name, what in FORMATS.items())
    exporting.add_argument("--to", required=True, choices=FORMATS, help=text)
    exporting.add_argument("--out", required=True, metavar="PATH", help="folder, or for GGUF the file, to write")
    exporting.add_argument("--format", choices=TYPES, help="of a model's weights in GGUF (default f32)")
    exporting.add_argument("--base", metavar="DIR", help=moved)
    exporting.add_argument("--base-name", metavar="NAME", help="with --to peft: where PEFT will find the base")

    importing = command("import", run_import, "read a Hugging Face GPT-2 or Llama, a GGUF file, or a PEFT adapter")
    importing.add_argument("source", metavar="PATH", help="the directory, or a file of a model")
    importing.add_argument("--from", dest="kind", required=True, choices=("peft", "hf", "gguf"))
    importing.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    importing.add_argument("--base", metavar="DIR", help="with --from peft: its base, after import")
    importing.add_argument("--labels", nargs="+", metavar="LABEL", help="with --from peft: a classifier's, in order")
    importing.add_argument("--tokenizer", metavar="FILE", help="with --from hf: a tokenizer.json from elsewhere")

    looking = command("inspect", run_inspect, "show names, shapes and norms of tensors, and the ranks of adapters")
    looking.add_argument("path", metavar="PATH", help="a .safetensors file, its folder, or a shipped adapter's name")
    looking.add_argument("--json", metavar="FILE", help="also write the description as JSON")

    doctor = command(
        "doctor", run_doctor, "say what an adapter does on a base, layer by layer, and what is wrong with it"
    )
    text = "a folder of PEFT's or of finetune, a GGUF file, or a shipped adapter's name"
    doctor.add_argument("path", metavar="ADAPTER", help=text)
    text = "smollm2, a GGUF file, or a folder, also of Hugging Face's (default: the one that finetune used)"
    doctor.add_argument("--base", metavar="DIR", help=text)
    doctor.add_argument("--prompt", type=str, metavar="TEXT", help="after which the logits are compared")
    doctor.add_argument("--json", metavar="FILE", help="also write the report as JSON")


def run_finetune(arguments):
    # An option that is not given has the default of `finetune`, `finetune_text` or `finetune_answers`.
    names = ("method", "learning_rate", "epochs", "batch_size", "seed", "base", "dropout")
    names += ("weights", "recompute", "threads", "max_tokens")
    settings = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    settings["adapter_config"] = adapter_config(arguments)
    settings["report"] = print_now
    if arguments.text_file is not None:
        check_unset(arguments, OF_TABLE, "needs --data; a --text-file has its own test part")
        result = finetune_text(arguments.text_file, arguments.out, **settings)
    elif arguments.text is None and arguments.label is None:
        check_unset(arguments, OF_TABLE, "needs --text and --label; without them --data is a file of conversations")
        result = finetune_answers(arguments.data, arguments.out, **settings)
    else:
        for name in ("text", "label"):
            if getattr(arguments, name) is None:
                raise ValueError(f"{name}: is missing; a table needs --text and --label, the names of its columns")
        table = arguments.data, arguments.text, arguments.label
        settings |= {
            "class_weights": arguments.class_weights or "none",
            "quoting": bool(arguments.quoting),
            "as_words": as_question(arguments.as_words),
        }
        result = finetune(*table, arguments.out, test_data=arguments.test, **settings)
    print(*report(result, arguments), f"saved in {arguments.out}", sep="\n")


def as_question(text):
    """A question for a language model, on a line of its own unless it begins with a space or a line's end."""
    return text if text is None or text[:1].isspace() else f"\n{text}"


def offered_variants():
    """The names for --variant: all but "loftq", which needs a quantised base."""
    return [variant for variant in VARIANTS if variant != "loftq"]


def adapter_config(arguments):
    """The AdapterConfig for the options."""
    one_of("variant", arguments.variant, offered_variants())
    if arguments.variant != "lora" and arguments.method != "lora":
        raise ValueError(f"variant: {arguments.variant!r} needs --method lora, got --method {arguments.method}")
    rank = arguments.rank
    if rank is None:
        rank = 4 if is_large(arguments.base or PRETRAINED) else 8
    config = AdapterConfig(
        r=rank,
        alpha=2.0 * rank if arguments.alpha is None else arguments.alpha,
        targets=tuple(arguments.targets or ("all-linear",)),
        dropout=arguments.lora_dropout,
    )
    config = variant_config(arguments.variant, config)
    if arguments.alpha is not None and config.kind == "vera":
        raise ValueError(f"alpha: got {arguments.alpha:g}, and vera has none: its trained vectors are its scale")
    return config


def report(result, arguments):
    """Lines about the data and the test of `finetune` or `finetune_text`."""
    for what in {"tokens", "conversations"} & result.keys():
        n, before, after = result[what], result["test_perplexity_before"], result["test_perplexity"]
        lines = [f"{what}: {n['train']:,} for training, {n['validation']:,} for validation, {n['test']:,} for testing"]
        if result.get("cut"):
            lines.append(f"      {result['cut']} are cut, because they are too long")
        if result.get("left_out"):
            lines.append(f"      {result['left_out']} are left out, because no part of an answer fits")
        return [*lines, f"test perplexity {after:.1f} (before: {before:.1f})"]
    n, longer = result["rows"], result["longer_texts"]
    lines = [f"labels: {', '.join(map(shown, result['labels']))}"]
    lines.append(f"rows: {n['train']} for training, {n['validation']} for validation, {n['test']} for testing")
    if n["left_out"]:
        lines.append(f"      {n['left_out']} of {arguments.data} left out, because their texts are in {arguments.test}")
    if longer:
        lines.append(f"      {longer} texts have more than {result['max_tokens']} tokens and are cut there")
    lines.append("")
    if "tf-idf" not in result["test"]["others"]:
        lines.append("tf-idf is left out of the comparison, because scikit-learn is not installed")
    if not (Path(arguments.out) / "confusion.png").is_file():
        lines.append("there is no confusion.png, because matplotlib is not installed")
    advice = ADVICE if result["class_weights"] == "none" else ""
    return [*lines, format_report(result["test"], advice), ""]


def run_predict(arguments):
    if bool(arguments.texts) == bool(arguments.data):
        raise ValueError("give either texts to classify or --data FILE")
    column, settings = arguments.text, (arguments.out, arguments.proba, arguments.quoting, arguments.base)
    if arguments.texts:
        check_unset(arguments, ["text"], "needs --data")
        records, column = text_records(arguments.texts), TEXT_COLUMN
    else:
        records = read_records(arguments.data, arguments.quoting)
    texts, labels, probabilities = label_records(arguments.model, records, column, *settings)
    if arguments.out:
        print(f"{len(texts)} texts; saved in {arguments.out}")
        return
    names = list(map(shown, labels))
    for text, p in zip(texts, probabilities):
        every = [" ".join(f"{name}={x:.3f}" for name, x in zip(names, p))] if arguments.proba else []
        print(names[p.argmax()], f"{p.max():.3f}", *every, shown(" ".join(text.split()), 100), sep="\t")


def run_evaluate(arguments):
    columns, settings = (arguments.text, arguments.label), (arguments.out, arguments.quoting, arguments.base)
    write_as_json = json_writer(arguments.json, [arguments.data, *task_places(arguments.model, arguments.base)])
    report = judge_file(arguments.model, arguments.data, *columns, *settings)
    print(format_report(report))
    write_as_json(report)


def run_mix(arguments):
    loaded = load_adapter_set(arguments.adapters, arguments.base)
    check_target(arguments.out, "out", loaded.folders)
    weights = arguments.weights or [1.0] * len(loaded.adapters)
    adapter, error = mixed(loaded, weights, arguments.rank)
    about = {"method": "lora", "mixed_from": dict(zip(loaded.adapters, weights))}
    save_task(arguments.out, loaded.task._replace(adapter=adapter), loaded.base, about)
    quality = f"relative error of ΔW {error:.2e}" if arguments.rank else "exact"
    terms = [f"{weight:g} {shown(name)}" for name, weight in about["mixed_from"].items()]
    print(f"{' + '.join(terms)}: rank {adapter.config.r}, {quality}")
    print(f"saved in {arguments.out}")


def run_merge(arguments):
    loaded = load_adapter_set(arguments.adapters, arguments.base)
    check_target(arguments.out, "out", loaded.folders)
    adapter = next(iter(loaded.adapters.values()))
    if len(loaded.adapters) > 1 or arguments.weights is not None or adapter is None:
        adapter, _ = mixed(loaded, arguments.weights)
    params = loaded.task.params
    task = loaded.task._replace(params=merged(loaded, adapter))
    errors = {name: merge_errors(params, adapter, name) for name in ("float32", "float16")}
    save_task(arguments.out, task, None, {"method": "full", "merged_from": list(loaded.adapters)})
    print(f"{'saved as':<9}{'error of W + ΔW':>17}{'of ΔW':>10}{'of W, unmerged':>16}")
    for name, error in errors.items():
        numbers = f"{error.merged:>17.1e}{error.update:>10.1e}{error.restored:>16.1e}"
        print(f"{name:<9}{numbers if math.isfinite(sum(error)) else '  some values are too large':>17}")
    if arguments.time:
        for name, (seconds, ratio) in forward_times(loaded, adapter).items():
            print(f"{name:<9}{1e3 * seconds:8.1f} ms   {ratio:.2f} of the base's")
    print(f"saved in {arguments.out}")


def run_export(arguments):
    if arguments.to != "peft":
        check_unset(arguments, ["base_name"], f"needs --to peft, got --to {arguments.to}")
    if not arguments.to.startswith("gguf"):
        check_unset(arguments, ["format"], f"needs --to gguf or gguf-merged, got --to {arguments.to}")
    which = arguments.task, arguments.to, arguments.out
    task = export(*which, arguments.base_name, arguments.base, arguments.format)
    words = "" if task.question is None else " that answers in words"
    kind = "a language model" if task.labels is None else f"a classifier of {len(task.labels)} classes{words}"
    what = f"an adapter of {kind}" if task.adapter is not None and arguments.to in ("peft", "gguf") else kind
    if task.question is not None:
        labels = ", ".join(repr(f" {shown(label)}") for label in task.labels)
        print(f"ask it with a text and then {task.question!r}; it was taught to answer one of {labels}")
    if arguments.to == "peft" and not arguments.base_name:
        print("its file names no base; --base-name NAME does, for AutoPeftModel")
    print(f"{what}; saved in {arguments.out}")


def run_import(arguments):
    if arguments.kind != "peft":
        check_unset(arguments, ["base", "labels"], "needs --from peft")
    if arguments.kind == "gguf":
        check_unset(arguments, ["tokenizer"], "needs --from hf; a GGUF file has its own")
        task = import_gguf(arguments.source, arguments.out)
    elif arguments.kind == "hf":
        task = import_hf(arguments.source, arguments.out, arguments.tokenizer)
    else:
        check_unset(arguments, ["tokenizer"], "needs --from hf; an adapter has its base's")
        task = import_peft(arguments.source, arguments.out, arguments.base or PRETRAINED, arguments.labels)
    config = task.config
    print(f"d_model {config.d_model}, {config.n_layers} layers, {config.n_heads} heads, {config.vocab_size} tokens")
    if task.adapter is not None:
        config = task.adapter.config
        ranks = sorted({module_rank(config, module) for module in layer_arrays(task.adapter)})
        rank = " and ".join(dict.fromkeys(map(str, ranks[:1] + ranks[-1:])))
        print(f"adapter of rank {rank or 0} on {', '.join(config.targets) or 'no layer'}")
    if task.labels is not None:
        print(f"labels: {', '.join(map(shown, task.labels))}")
    if task.tokenizer is None:
        print("no tokenizer: finetune and generate will need one (--tokenizer FILE)")
    print(f"saved in {arguments.out}")


def run_doctor(arguments):
    sources = [*sources_of(arguments.path), base_place(arguments.path, arguments.base)]
    write_as_json = json_writer(arguments.json, sources)
    report = diagnose(arguments.path, arguments.base, arguments.prompt)
    write_as_json(report)
    print(format_diagnosis(report))
    return 1 if report["faults"] else 0


def run_inspect(arguments):
    write_as_json = json_writer(arguments.json, sources_of(arguments.path))
    inspected = inspect_file(arguments.path)
    write_as_json(inspected)
    print(format_inspection(inspected))
