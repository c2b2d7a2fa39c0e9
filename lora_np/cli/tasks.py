"""Commands for a user's own files: finetune, predict, generate, mix, merge, export, import, inspect."""

import json
import math

import numpy as np

from ..adapters import VARIANTS, AdapterConfig, merge_errors, variant_config
from ..checked import one_of, shown, whole_number
from ..data import read_table
from ..formats import PRETRAINED, check_file, check_target, save_task, write_text
from ..model import Sampling
from ..tasks.adapter_set import forward_times, load_adapter_set, merged, mixed
from ..tasks.classifier import finetune, load_classifier, predict
from ..tasks.exchange import FORMATS, export, import_gpt2, import_peft
from ..tasks.inspection import format_inspection, inspect_file, sources_of
from ..tasks.language_model import finetune_text
from ..tasks.start import answers_of
from ..tasks.writing import write_text_from
from ..training import blas_threads
from .shared import check_unset, json_writer


def add_commands(command):
    tuning = command("finetune", run_finetune, "train a classifier on your own table, or a language model on your text")
    source = tuning.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", metavar="FILE", help="a CSV, TSV or JSONL file, for a classifier")
    text = "a text, for a language model; separated by empty lines, or else by lines"
    source.add_argument("--text-file", metavar="FILE", help=text)
    tuning.add_argument("--text", metavar="COLUMN", help="the column of texts in --data")
    tuning.add_argument("--label", metavar="COLUMN", help="the column of labels in --data")
    tuning.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    tuning.add_argument("--test", metavar="FILE", help="a separate file to test on (default: a tenth of --data)")
    tuning.add_argument("--method", choices=("lora", "full", "head"), default="lora")
    text = f"of LoRA: {', '.join(offered_variants())} (default lora)"
    tuning.add_argument("--variant", default="lora", metavar="NAME", help=text)
    tuning.add_argument("--rank", type=int, default=8, metavar="R", help="LoRA's rank (default 8)")
    tuning.add_argument("--alpha", type=float, metavar="A", help="LoRA's alpha (default twice the rank)")
    text = """layers that LoRA adapts: q_proj k_proj v_proj o_proj up_proj down_proj, all-linear, or a pattern such as
    'blocks.0.*' (default q_proj v_proj; all-linear for a language model)"""
    tuning.add_argument("--targets", nargs="+", metavar="LAYER", help=text)
    tuning.add_argument("--dropout", type=float, default=0.0, metavar="P", help="of the model (default 0)")
    tuning.add_argument("--lora-dropout", type=float, default=0.0, metavar="P", help="on the adapter's input")
    text = "peak learning rate (default depends on the method)"
    tuning.add_argument("--lr", dest="learning_rate", type=float, metavar="RATE", help=text)
    tuning.add_argument("--epochs", type=int, default=4, metavar="N", help="(default 4)")
    tuning.add_argument("--batch-size", type=int, metavar="N", help="(default 32; 16 for a language model)")
    tuning.add_argument("--seed", type=int, default=0, metavar="N")
    tuning.add_argument("--base", metavar="DIR", help="model to start from (default: the shipped one)")

    predict = command("predict", run_predict, "classify new texts with a model from finetune")
    predict.add_argument("--model", required=True, metavar="DIR", help="the folder that finetune wrote")
    moved = "its base, if that has moved (default: the folder that it was trained on)"
    predict.add_argument("--base", metavar="DIR", help=moved)
    predict.add_argument("texts", nargs="*", type=str, metavar="TEXT", help="texts to classify")
    predict.add_argument("--data", metavar="FILE", help="a CSV, TSV or JSONL file of texts")
    predict.add_argument("--text", metavar="COLUMN", help="its column of texts")
    predict.add_argument("--out", metavar="FILE", help="write text, label and probability as JSONL")

    write = command("generate", run_generate, "continue a prompt with the base, an adapter, or several adapters")
    write.add_argument("--prompt", required=True, type=str, metavar="TEXT", help="start of the text")
    write.add_argument("--model", metavar="DIR", help="the language model (default: the shipped one)")
    text = "an adapter's folder, critics or licences (shipped), or base for none; several write one text each"
    write.add_argument("--adapter", nargs="+", action="extend", default=[], metavar="DIR", help=text)
    write.add_argument("--weights", nargs="+", type=float, metavar="W", help="mix the adapters with these weights")
    write.add_argument("--tokens", type=int, default=60, metavar="N", help="maximum number to generate (default 60)")
    write.add_argument("--temperature", type=float, default=0.8, metavar="T", help="0: most likely (default 0.8)")
    write.add_argument("--top-k", type=int, metavar="K", help="sample from the K most likely tokens")
    write.add_argument("--top-p", type=float, metavar="P", help="sample from the most likely tokens that sum to P")
    write.add_argument("--repetition-penalty", type=float, default=1.0, metavar="X", help="above 1: fewer repetitions")
    write.add_argument("--ignore-end", action="store_true", help="continue after the end of a text")
    write.add_argument("--seed", type=int, default=0, metavar="N")

    mixing = command("mix", run_mix, "combine several adapters into one, their weighted sum")
    merging = command("merge", run_merge, "write a model with an adapter, or a mix of several, merged into its weights")
    for both in (mixing, merging):
        both.add_argument("adapters", nargs="+", metavar="DIR", help="folders of adapters, or names of shipped ones")
        both.add_argument("--weights", nargs="+", type=float, metavar="W", help="one per adapter (default: 1 each)")
        both.add_argument("--base", metavar="DIR", help="their base (default: the one that the first was trained on)")
        both.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    mixing.add_argument("--rank", type=int, metavar="R", help="reduce to this rank (default: the sum of the ranks)")
    merging.add_argument("--time", action="store_true", help="time a forward pass of the base and the merged model")

    exporting = command("export", run_export, "write files for transformers or PEFT")
    exporting.add_argument("task", metavar="DIR", help="a folder from finetune, a model, or a shipped adapter's name")
    text = "peft: the adapter only; hf: its base; merged: the base with the adapter in its weights"
    exporting.add_argument("--to", required=True, choices=FORMATS, help=text)
    exporting.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    exporting.add_argument("--base", metavar="DIR", help=moved)
    exporting.add_argument("--base-name", metavar="NAME", help="with --to peft: where PEFT will find the base")

    importing = command("import", run_import, "read a Hugging Face GPT-2 or a PEFT adapter")
    importing.add_argument("source", metavar="PATH", help="the directory, or a file of a GPT-2")
    importing.add_argument("--from", dest="kind", required=True, choices=("peft", "hf"))
    importing.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    importing.add_argument("--base", metavar="DIR", help="with --from peft: its base, after import")
    importing.add_argument("--labels", nargs="+", metavar="LABEL", help="with --from peft: a classifier's, in order")
    importing.add_argument("--tokenizer", metavar="FILE", help="with --from hf: a tokenizer.json from elsewhere")

    looking = command("inspect", run_inspect, "show names, shapes and norms of tensors, and the ranks of adapters")
    looking.add_argument("path", metavar="PATH", help="a .safetensors file, its folder, or a shipped adapter's name")
    looking.add_argument("--json", metavar="FILE", help="also write the description as JSON")


def run_finetune(arguments):
    is_text = arguments.text_file is not None
    # An option that is not given has the default of `finetune` or `finetune_text`.
    names = ("method", "learning_rate", "epochs", "batch_size", "seed", "base", "dropout")
    settings = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    settings["adapter_config"] = adapter_config(arguments, ("all-linear",) if is_text else ("q_proj", "v_proj"))
    if is_text:
        check_unset(arguments, ["text", "label", "test"], "needs --data; a --text-file has its own test part")
        result = finetune_text(arguments.text_file, arguments.out, **settings)
    else:
        for name in ("text", "label"):
            if getattr(arguments, name) is None:
                raise ValueError(f"{name}: is missing; --data needs --text and --label, the names of its columns")
        table = arguments.data, arguments.text, arguments.label
        result = finetune(*table, arguments.out, test_data=arguments.test, **settings)
    print(*report(result, arguments), f"saved in {arguments.out}", sep="\n")


def offered_variants():
    """The names for --variant: all but "loftq", which needs a quantised base."""
    return [variant for variant in VARIANTS if variant != "loftq"]


def adapter_config(arguments, targets):
    """The AdapterConfig for the options; `targets` are used if the options name none."""
    one_of("variant", arguments.variant, offered_variants())
    if arguments.variant != "lora" and arguments.method != "lora":
        raise ValueError(f"variant: {arguments.variant!r} needs --method lora, got --method {arguments.method}")
    config = AdapterConfig(
        r=arguments.rank,
        alpha=2.0 * arguments.rank if arguments.alpha is None else arguments.alpha,
        targets=tuple(arguments.targets or targets),
        dropout=arguments.lora_dropout,
    )
    config = variant_config(arguments.variant, config)
    if arguments.alpha is not None and config.kind == "vera":
        raise ValueError(f"alpha: got {arguments.alpha:g}, and vera has none: its trained vectors are its scale")
    return config


def report(result, arguments):
    """Lines about the data, the training and the test of `finetune` or `finetune_text`."""
    trained = f"trained {result['trainable']:,} parameters ({result['percent']:.3f} %)"
    if "tokens" in result:
        n, before, after = result["tokens"], result["test_perplexity_before"], result["test_perplexity"]
        data = f"tokens: {n['train']:,} for training, {n['validation']:,} for validation, {n['test']:,} for testing"
        return [data, trained, f"test perplexity {after:.1f} (before: {before:.1f})"]
    n, longer = result["rows"], result["longer_texts"]
    lines = [f"labels: {', '.join(map(shown, result['labels']))}"]
    lines.append(f"rows: {n['train']} for training, {n['validation']} for validation, {n['test']} for testing")
    if n["left_out"]:
        lines.append(f"      {n['left_out']} of {arguments.data} left out, because their texts are in {arguments.test}")
    if longer:
        lines.append(f"      {longer} texts have more than {result['n_positions']} tokens and are cut there")
    accuracy, share = 100 * result["test_accuracy"], 100 * result["commonest_label_share"]
    test = f"test accuracy {accuracy:.1f} % (always predicting the commonest label: {share:.1f} %)"
    return [*lines, trained, test]


def run_predict(arguments):
    if bool(arguments.texts) == bool(arguments.data):
        raise ValueError("give either texts to classify or --data FILE with --text COLUMN")
    if arguments.data and not arguments.text:
        raise ValueError("--data also needs --text, the name of its column of texts")
    if arguments.out:
        check_file(arguments.out, "out")
    texts = read_table(arguments.data, arguments.text, None).texts if arguments.data else arguments.texts
    classifier = load_classifier(arguments.model, arguments.base)
    with answers_of(arguments.model):
        answers = predict(classifier, texts)
    if arguments.out:
        rows = [{"text": text, "label": label, "probability": round(p, 6)} for text, (label, p) in zip(texts, answers)]
        write_text(arguments.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        print(f"{len(texts)} texts; saved in {arguments.out}")
    else:
        for text, (label, p) in zip(texts, answers):
            print(f"{shown(label)}\t{p:.3f}\t{shown(' '.join(text.split()), 100)}")


def run_generate(arguments):
    whole_number("seed", arguments.seed, least=0)
    sampling = Sampling(arguments.temperature, arguments.top_k, arguments.top_p, arguments.repetition_penalty)
    loaded = load_adapter_set(arguments.adapter, arguments.model)
    adapters = loaded.adapters or {"base": None}
    if arguments.weights is not None:
        adapters = {"mix": mixed(loaded, arguments.weights)[0]}
    for name, adapter in adapters.items():
        with blas_threads(1), answers_of(name if adapter is not None else loaded.base):
            if len(adapters) > 1:
                print(f"[{shown(name)}]")
            rng = np.random.default_rng(arguments.seed)
            text = arguments.prompt, arguments.tokens
            try:
                for piece in write_text_from(loaded.task, *text, adapter, sampling, rng, arguments.ignore_end):
                    print(piece, end="", flush=True)
            finally:
                print()


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
    task = export(arguments.task, arguments.to, arguments.out, arguments.base_name, arguments.base)
    kind = "a language model" if task.labels is None else f"a classifier of {len(task.labels)} classes"
    what = f"an adapter of {kind}" if arguments.to == "peft" else kind
    print(f"{what}; saved in {arguments.out}")


def run_import(arguments):
    if arguments.kind == "hf":
        check_unset(arguments, ["base", "labels"], "needs --from peft")
        task = import_gpt2(arguments.source, arguments.out, arguments.tokenizer)
    else:
        check_unset(arguments, ["tokenizer"], "needs --from hf; an adapter has its base's")
        task = import_peft(arguments.source, arguments.out, arguments.base or PRETRAINED, arguments.labels)
    config = task.config
    print(f"d_model {config.d_model}, {config.n_layers} layers, {config.n_heads} heads, {config.vocab_size} tokens")
    if task.adapter is not None:
        print(f"adapter of rank {task.adapter.config.r} on {', '.join(task.adapter.config.targets) or 'no layer'}")
    if task.labels is not None:
        print(f"labels: {', '.join(map(shown, task.labels))}")
    if task.tokenizer is None:
        print("no tokenizer: finetune and generate will need one (--tokenizer FILE)")
    print(f"saved in {arguments.out}")


def run_inspect(arguments):
    write_as_json = json_writer(arguments.json, sources_of(arguments.path))
    inspected = inspect_file(arguments.path)
    write_as_json(inspected)
    print(format_inspection(inspected))
