"""Commands for models and adapters: predict, evaluate, mix, merge, export, import, inspect, doctor."""

import math
from pathlib import Path

from ..adapters import layer_arrays, merge, merge_errors, module_rank
from ..checked import check_unset, shown
from ..formats import PRETRAINED, check_target, save_task, task_places
from ..formats.paths import is_in
from ..formats.peft import includes_head
from ..formats.to_gguf import TYPES
from ..model import architecture
from ..tasks.adapter_set import check_finite, forward_times, load_adapter_set, mixed
from ..tasks.doctor import base_place, diagnose, format_diagnosis
from ..tasks.exchange import FORMATS, export, import_adapter, import_gguf, import_hf, is_gguf_adapter
from ..tasks.inspection import format_inspection, inspect_file, sources_of
from ..tasks.labelling import LabelledFile, judge_file, label_file, label_texts
from ..tasks.report import format_report
from .shared import MOVED, add_columns, json_writer, print_now


def add_commands(command):
    predict = command("predict", run_predict, "classify new texts with a model from finetune")
    predict.add("--model DIR", "the folder that finetune wrote", required=True)
    predict.add("--base DIR", MOVED)
    predict.add("texts TEXT", "texts to classify", nargs="*")
    predict.add("--data FILE", "a CSV, TSV or JSONL file of texts")
    add_columns(predict, "text")
    predict.add("--proba", "report the probability of every class")
    predict.add("--out FILE", "write all columns, the label and its probability to a .csv, .tsv or .jsonl file")

    judging = command("evaluate", run_evaluate, "compare a classifier's predictions with the labels in a file")
    judging.add("--model DIR", "the folder that finetune wrote", required=True)
    judging.add("--base DIR", MOVED)
    judging.add("--data FILE", "a CSV, TSV or JSONL file", required=True)
    add_columns(judging, "text", "label")
    judging.add("--json FILE", "also write the report as JSON")
    judging.add("--out FILE", "draw the confusion matrix as a .png")

    mixing = command("mix", run_mix, "combine several adapters into one, whose update is the weighted sum of theirs")
    merging = command("merge", run_merge, "merge an adapter, or a mix of several, into the weights of the base")
    for both in (mixing, merging):
        both.add("adapters DIR …", "folders or names of adapters")
        both.add("--weights W …", "one weight per adapter (default: 1 each)")
        both.add("--base DIR", "the adapters' base (default: the base that the first adapter was trained on)")
        both.add("--out DIR", "folder to write", required=True)
    mixing.add("--rank R", "reduce the result to this rank (default: the sum of the ranks)")
    merging.add("--time", "time forward passes of the base, of the base with the adapter, and of the merged model")

    exporting = command("export", run_export, "write files for transformers, PEFT or llama.cpp")
    exporting.add("task DIR", "a folder from finetune, a model, or an included adapter's name")
    exporting.add("--to", "; ".join(map(": ".join, FORMATS.items())), required=True, choices=FORMATS)
    exporting.add("--out PATH", "folder to write; for GGUF, file to write", required=True)
    exporting.add("--format", "format of a model's weights in GGUF (default f32)", choices=TYPES)
    exporting.add("--base DIR", MOVED)
    exporting.add("--base-name NAME", "with --to peft: the name or path under which PEFT will find the base")

    importing = command("import", run_import, "read a Hugging Face model, a GGUF model or adapter, or a PEFT adapter")
    importing.add("source PATH", "a folder, or a model file")
    importing.add("--from", "format of the source", dest="kind", required=True, choices=("peft", "hf", "gguf"))
    importing.add("--out DIR", "folder to write", required=True)
    importing.add("--base DIR", "for an adapter: its base, in this package's format")
    importing.add("--labels LABEL …", "for an adapter: the labels of its classes")
    importing.add("--tokenizer FILE", "with --from hf: a tokenizer.json from another folder")

    looking = command("inspect", run_inspect, "show names, shapes and norms of tensors, and the ranks of adapters")
    looking.add("path PATH", "a .safetensors file, its folder, or an included adapter's name")
    looking.add("--json FILE", "also write the description as JSON")

    doctor = command("doctor", run_doctor, "report an adapter's faults, and how it changes each layer of a base")
    doctor.add("path ADAPTER", "a folder from PEFT or finetune, a GGUF file, or an included adapter's name")
    doctor.add("--base DIR", "smollm2, a GGUF file, or a folder, including Hugging Face's (default: as in task.json)")
    doctor.add("--prompt TEXT", "the prompt after which the logits are compared")
    doctor.add("--json FILE", "also write the report as JSON")


def run_predict(arguments):
    if bool(arguments.texts) == bool(arguments.data):
        raise ValueError("give either texts to classify or --data FILE")
    model, column, out, proba = arguments.model, arguments.text_column, arguments.out, arguments.proba
    n, windows = len(arguments.texts), []
    if out and Path(out).exists():
        print_now(f"{shown(out)} exists, and will be replaced")
    if arguments.texts:
        check_unset("needs --data", text=column)
        labels, probabilities = label_texts(model, arguments.texts, out, proba, arguments.base)
        windows = [(None, arguments.texts, probabilities)]
    elif out:
        n = label_file(model, arguments.data, out, column, proba, arguments.quoting, arguments.base)
    else:
        file = LabelledFile(model, arguments.data, column, arguments.quoting, arguments.base)
        labels, windows = file.classifier.labels, file.windows(progress="predict")
    if out:
        print(f"{n} texts; saved in {shown(out)}")
        return
    names = list(map(shown, labels))
    for _, texts, of_window in windows:
        for text, p in zip(texts, of_window):
            every = [" ".join(f"{name}={x:.3f}" for name, x in zip(names, p))] if proba else []
            print(names[p.argmax()], f"{p.max():.3f}", *every, shown(" ".join(text.split()), 100), sep="\t")


def run_evaluate(arguments):
    model, data, base = arguments.model, arguments.data, arguments.base
    if arguments.out is not None and Path(arguments.out).suffix.lower() != ".png":
        raise ValueError(f"out: got {arguments.out!r}, expected a file that ends in .png")
    if None not in (arguments.out, arguments.json) and is_in(arguments.json, arguments.out):
        raise ValueError(f"json: got {arguments.json!r}, which is also --out; expected another file")
    write_as_json = json_writer(arguments.json, [data, *task_places(model, base)])
    columns = arguments.text_column, arguments.label_column
    report = judge_file(model, data, *columns, arguments.out, arguments.quoting, base)
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
    print(f"saved in {shown(arguments.out)}")


def run_merge(arguments):
    loaded = load_adapter_set(arguments.adapters, arguments.base)
    check_target(arguments.out, "out", loaded.folders)
    adapter = next(iter(loaded.adapters.values()))
    if len(loaded.adapters) > 1 or arguments.weights is not None or adapter is None:
        adapter, _ = mixed(loaded, arguments.weights)
    params = loaded.task.params
    task = loaded.task._replace(params=check_finite(merge(params, adapter)))
    errors = {name: merge_errors(params, adapter, name) for name in ("float32", "float16")}
    save_task(arguments.out, task, None, {"method": "full", "merged_from": list(loaded.adapters)})
    print(f"{'saved as':<9}{'error of W + ΔW':>17}{'of ΔW':>10}{'of unmerged W':>16}")
    for name, error in errors.items():
        numbers = f"{error.merged:>17.1e}{error.update:>10.1e}{error.restored:>16.1e}"
        print(f"{name:<9}{numbers if math.isfinite(sum(error)) else '  some values are too large':>17}")
    if arguments.time:
        for name, (seconds, ratio) in forward_times(loaded, adapter).items():
            print(f"{name:<9}{1e3 * seconds:8.1f} ms   {ratio:.2f} × the base's time")
    print(f"saved in {shown(arguments.out)}")


def run_export(arguments):
    if arguments.to != "peft":
        check_unset(f"needs --to peft, got --to {arguments.to}", base_name=arguments.base_name)
    if not arguments.to.startswith("gguf"):
        check_unset(f"needs --to gguf or gguf-merged, got --to {arguments.to}", format=arguments.format)
    which = arguments.task, arguments.to, arguments.out
    task = export(*which, arguments.base_name, arguments.base, arguments.format)
    words = "" if task.question is None else " that answers with label words"
    kind = "a language model" if architecture(task.config).writes else "an encoder"
    kind = kind if task.labels is None else f"a classifier of {len(task.labels)} classes{words}"
    what = f"an adapter of {kind}" if task.adapter is not None and arguments.to in ("peft", "gguf") else kind
    if task.question is not None:
        labels = ", ".join(repr(f" {shown(label)}") for label in task.labels)
        print(f"prompt the model with a text and {task.question!r}; it was trained to answer with one of {labels}")
    if arguments.to == "peft" and task.config.n_classes and not includes_head(task.config):
        print("the head is not in this file, but in the base that --to hf writes")
    if arguments.to == "peft" and not arguments.base_name:
        print("adapter_config.json names no base; to name one for AutoPeftModel, use --base-name NAME")
    print(f"{what}; saved in {shown(arguments.out)}")


def run_import(arguments):
    is_adapter = arguments.kind == "peft" or arguments.kind == "gguf" and is_gguf_adapter(arguments.source)
    if not is_adapter:
        check_unset("needs the source to be an adapter", base=arguments.base, labels=arguments.labels)
    if arguments.kind == "gguf" and not is_adapter:
        check_unset("needs --from hf; a GGUF file contains a tokenizer", tokenizer=arguments.tokenizer)
        task = import_gguf(arguments.source, arguments.out)
    elif arguments.kind == "hf":
        task = import_hf(arguments.source, arguments.out, arguments.tokenizer)
    else:
        check_unset("needs --from hf; an adapter uses the base's tokenizer", tokenizer=arguments.tokenizer)
        task = import_adapter(arguments.source, arguments.out, arguments.base or PRETRAINED, arguments.labels)
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
    print(f"saved in {shown(arguments.out)}")


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
