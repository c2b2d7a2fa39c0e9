"""Commands that take adapters as parts: generate, mix, merge, export, import, inspect."""

import json
import sys


def add_commands(command):
    write = command("generate", run_generate, "continue a prompt with the base, with an adapter, or with several")
    write.add_argument("--prompt", required=True, metavar="TEXT", help="how the text begins")
    write.add_argument("--model", metavar="DIR", help="the language model (default: the one that ships)")
    write.add_argument(
        "--adapter", nargs="+", action="extend", default=[], metavar="DIR",
        help="folder of an adapter, or critics or licences, which come with the package, or base for none; "
        "with several, one text for each",
    )  # fmt: skip
    write.add_argument("--weights", nargs="+", type=float, metavar="W", help="mix the adapters with these into one")
    write.add_argument("--tokens", type=int, default=60, metavar="N", help="the most to write (default 60)")
    write.add_argument("--temperature", type=float, default=0.8, metavar="T", help="0: the likeliest (default 0.8)")
    write.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens only")
    write.add_argument("--top-p", type=float, metavar="P", help="draw from the fewest that are likely P in all")
    write.add_argument("--repetition-penalty", type=float, default=1.0, metavar="X", help="above 1: fewer repeats")
    write.add_argument("--ignore-end", action="store_true", help="write on where a text would end")
    write.add_argument("--seed", type=int, default=0, metavar="N")

    mixing = command("mix", run_mix, "make one adapter of several: their weighted sum")
    add_adapters(mixing)
    mixing.add_argument("--rank", type=int, metavar="R", help="cut to this rank (default: exact, the ranks' sum)")
    mixing.add_argument("--out", required=True, metavar="DIR", help="folder to write")

    merging = command("merge", run_merge, "write a model with an adapter, or a mix of several, in its weights")
    add_adapters(merging)
    merging.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    merging.add_argument("--time", action="store_true", help="time a forward pass of the base and the merged model")

    exporting = command("export", run_export, "write for transformers and PEFT")
    exporting.add_argument("task", metavar="DIR", help="what finetune saved, a model, or an adapter by name")
    exporting.add_argument(
        "--to", required=True, choices=("peft", "hf", "merged"),
        help="peft: the adapter alone; hf: the base that it belongs to; merged: the adapted model",
    )  # fmt: skip
    exporting.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    exporting.add_argument("--base-name", metavar="NAME", help="where PEFT will find the base (with --to peft)")

    importing = command("import", run_import, "read a GPT-2 of Hugging Face's, or an adapter of PEFT's")
    importing.add_argument("source", metavar="PATH", help="the directory, or a file of a GPT-2")
    importing.add_argument("--from", dest="kind", required=True, choices=("peft", "hf"))
    importing.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    importing.add_argument("--base", metavar="DIR", help="with --from peft: its base, imported before")
    importing.add_argument("--labels", nargs="+", metavar="LABEL", help="with --from peft: a classifier's, in order")
    importing.add_argument("--tokenizer", metavar="FILE", help="with --from hf: a tokenizer.json from elsewhere")

    looking = command("inspect", run_inspect, "names, shapes and norms in a file; ranks of an adapter")
    looking.add_argument("path", metavar="PATH", help="a .safetensors file, a folder with one, or an adapter by name")
    looking.add_argument("--json", metavar="FILE", help="also write it as JSON")


def add_adapters(command):
    command.add_argument("adapters", nargs="+", metavar="DIR", help="folders of adapters, or names of shipped ones")
    command.add_argument("--weights", nargs="+", type=float, metavar="W", help="one for each (default: 1 each)")
    command.add_argument("--base", metavar="DIR", help="their base (default: the one that the first was trained on)")


def run_generate(arguments):
    import numpy as np

    from ..model import Sampling
    from ..tasks.parts import load_parts, mixed
    from ..tasks.writing import write_text_from
    from ..training import blas_threads

    if arguments.seed < 0:
        raise ValueError(f"seed: got {arguments.seed}, expected a whole number of at least 0")
    sampling = Sampling(arguments.temperature, arguments.top_k, arguments.top_p, arguments.repetition_penalty)
    parts = load_parts(arguments.adapter, arguments.model)
    adapters = parts.adapters or {"base": None}
    if arguments.weights is not None:
        adapters = {"mix": mixed(parts, arguments.weights)[0]}
    with blas_threads(1):
        for name, adapter in adapters.items():
            if len(adapters) > 1:
                print(f"[{name}]")
            rng = np.random.default_rng(arguments.seed)
            pieces = write_text_from(
                parts.task, arguments.prompt, arguments.tokens, adapter, sampling, rng, arguments.ignore_end
            )
            for piece in pieces:
                sys.stdout.write(piece)
                sys.stdout.flush()
            print()
    return 0


def run_mix(arguments):
    from ..formats import check_folder
    from ..tasks.parts import load_parts, mixed, save_mix, sources

    parts = load_parts(arguments.adapters, arguments.base)
    check_folder(arguments.out, "out", sources(parts))
    weights = arguments.weights or [1.0] * len(parts.adapters)
    adapter, error = mixed(parts, weights, arguments.rank)
    save_mix(arguments.out, parts, adapter, weights)
    about = f"relative error of ΔW {error:.2e}" if arguments.rank else "exact"
    terms = [f"{weight:g} {name}" for weight, name in zip(weights, parts.adapters)]
    print(f"{' + '.join(terms)}: rank {adapter.config.r}, {about}")
    print(f"saved in {arguments.out}")
    return 0


def run_merge(arguments):
    from ..formats import check_folder, save_task
    from ..tasks.parts import forward_times, load_parts, merged_task, mixed, sources

    parts = load_parts(arguments.adapters, arguments.base)
    check_folder(arguments.out, "out", sources(parts))
    adapter = next(iter(parts.adapters.values()))
    if len(parts.adapters) > 1 or arguments.weights is not None or adapter is None:
        adapter, _ = mixed(parts, arguments.weights or [1.0] * len(parts.adapters))
    task, errors = merged_task(parts, adapter)
    save_task(arguments.out, task, None, {"method": "full", "merged_from": list(parts.adapters)})
    print(f"{'kept as':<9}{'error of W + ΔW':>17}{'of ΔW':>10}{'of W, unmerged':>16}")
    for name, error in errors.items():
        print(f"{name:<9}{error.merged:>17.1e}{error.update:>10.1e}{error.restored:>16.1e}")
    if arguments.time:
        for name, (seconds, ratio) in forward_times(parts, adapter).items():
            print(f"{name:<9}{1e3 * seconds:8.1f} ms   {ratio:.2f} of the base's")
    print(f"saved in {arguments.out}")
    return 0


def run_export(arguments):
    from ..tasks.exchange import export

    if arguments.base_name is not None and arguments.to != "peft":
        raise ValueError(f"base-name: goes with --to peft, got --to {arguments.to}")
    task = export(arguments.task, arguments.to, arguments.out, arguments.base_name)
    kind = "a language model" if task.labels is None else f"a classifier of {len(task.labels)} classes"
    what = f"an adapter of {kind}" if arguments.to == "peft" else kind
    print(f"{what}; saved in {arguments.out}")
    return 0


def run_import(arguments):
    from ..formats import PRETRAINED
    from ..tasks.exchange import import_gpt2, import_peft

    if arguments.kind == "hf":
        for name in ("base", "labels"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"{name}: goes with --from peft")
        task = import_gpt2(arguments.source, arguments.out, arguments.tokenizer)
    else:
        if arguments.tokenizer is not None:
            raise ValueError("tokenizer: goes with --from hf; an adapter has its base's")
        task = import_peft(arguments.source, arguments.out, arguments.base or PRETRAINED, arguments.labels)
    config = task.config
    print(f"d_model {config.d_model}, {config.n_layers} layers, {config.n_heads} heads, {config.vocab_size} tokens")
    if task.adapter is not None:
        print(f"adapter of rank {task.adapter.config.r} on {', '.join(task.adapter.config.targets) or 'no layer'}")
    if task.labels is not None:
        print(f"labels: {', '.join(task.labels)}")
    if task.tokenizer is None:
        print("without a tokenizer: finetune and generate will need one (--tokenizer FILE)")
    print(f"saved in {arguments.out}")
    return 0


def run_inspect(arguments):
    from ..formats import check_file, write_text
    from ..tasks.inspection import format_inspection, inspect_file

    if arguments.json:
        check_file(arguments.json, "json")
    found = inspect_file(arguments.path)
    print(format_inspection(found))
    if arguments.json:
        write_text(arguments.json, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return 0
