"""Commands that use adapters: generate, mix, merge, export, import, inspect."""

import numpy as np

from ..adapters import merge, merge_errors
from ..checked import whole_number
from ..formats import PRETRAINED, check_folder, save_task
from ..model import Sampling
from ..tasks.adapter_set import forward_times, load_adapter_set, mixed
from ..tasks.exchange import FORMATS, export, import_gpt2, import_peft
from ..tasks.inspection import format_inspection, inspect_file
from ..tasks.writing import write_text_from
from ..training import blas_threads
from .shared import check_unset, json_writer


def add_commands(command):
    write = command("generate", run_generate, "continue a prompt with the base, an adapter, or several adapters")
    write.add_argument("--prompt", required=True, metavar="TEXT", help="start of the text")
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


def run_generate(arguments):
    whole_number("seed", arguments.seed, least=0)
    sampling = Sampling(arguments.temperature, arguments.top_k, arguments.top_p, arguments.repetition_penalty)
    loaded = load_adapter_set(arguments.adapter, arguments.model)
    adapters = loaded.adapters or {"base": None}
    if arguments.weights is not None:
        adapters = {"mix": mixed(loaded, arguments.weights)[0]}
    with blas_threads(1):
        for name, adapter in adapters.items():
            if len(adapters) > 1:
                print(f"[{name}]")
            rng = np.random.default_rng(arguments.seed)
            text = arguments.prompt, arguments.tokens
            for piece in write_text_from(loaded.task, *text, adapter, sampling, rng, arguments.ignore_end):
                print(piece, end="", flush=True)
            print()


def run_mix(arguments):
    loaded = load_adapter_set(arguments.adapters, arguments.base)
    check_folder(arguments.out, "out", loaded.folders)
    weights = arguments.weights or [1.0] * len(loaded.adapters)
    adapter, error = mixed(loaded, weights, arguments.rank)
    about = {"method": "lora", "mixed_from": dict(zip(loaded.adapters, weights))}
    save_task(arguments.out, loaded.task._replace(adapter=adapter), loaded.base, about)
    quality = f"relative error of ΔW {error:.2e}" if arguments.rank else "exact"
    terms = [f"{weight:g} {name}" for name, weight in about["mixed_from"].items()]
    print(f"{' + '.join(terms)}: rank {adapter.config.r}, {quality}")
    print(f"saved in {arguments.out}")


def run_merge(arguments):
    loaded = load_adapter_set(arguments.adapters, arguments.base)
    check_folder(arguments.out, "out", loaded.folders)
    adapter = next(iter(loaded.adapters.values()))
    if len(loaded.adapters) > 1 or arguments.weights is not None or adapter is None:
        adapter, _ = mixed(loaded, arguments.weights)
    params = loaded.task.params
    errors = {name: merge_errors(params, adapter, name) for name in ("float32", "float16")}
    merged = loaded.task._replace(params=merge(params, adapter))
    save_task(arguments.out, merged, None, {"method": "full", "merged_from": list(loaded.adapters)})
    print(f"{'saved as':<9}{'error of W + ΔW':>17}{'of ΔW':>10}{'of W, unmerged':>16}")
    for name, error in errors.items():
        print(f"{name:<9}{error.merged:>17.1e}{error.update:>10.1e}{error.restored:>16.1e}")
    if arguments.time:
        for name, (seconds, ratio) in forward_times(loaded, adapter).items():
            print(f"{name:<9}{1e3 * seconds:8.1f} ms   {ratio:.2f} of the base's")
    print(f"saved in {arguments.out}")


def run_export(arguments):
    if arguments.to != "peft":
        check_unset(arguments, ["base_name"], f"needs --to peft, got --to {arguments.to}")
    task = export(arguments.task, arguments.to, arguments.out, arguments.base_name)
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
        print(f"labels: {', '.join(task.labels)}")
    if task.tokenizer is None:
        print("no tokenizer: finetune and generate will need one (--tokenizer FILE)")
    print(f"saved in {arguments.out}")


def run_inspect(arguments):
    write_as_json = json_writer(arguments.json)
    inspected = inspect_file(arguments.path)
    print(format_inspection(inspected))
    write_as_json(inspected)
