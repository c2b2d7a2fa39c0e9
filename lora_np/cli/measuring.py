"""Commands that measure: gradcheck, bench, experiment."""

from pathlib import Path

from .shared import add_workers, figures_folder, json_writer, print_now


def add_commands(command):
    check = command("gradcheck", run_gradcheck, "check every backward pass against central differences")
    check.add_argument("--json", metavar="FILE", help="also write the rows as JSON")

    timing = command("bench", run_bench, "time lora_np beside PyTorch and JAX on the same work")
    timing.add_argument(
        "--peers", nargs="*", action="extend", metavar="PEER",
        help="torch, compile, jax, NAME=DIR for another checkout of lora_np (default: those installed); none: no peer",
    )  # fmt: skip
    timing.add_argument(
        "--rungs", nargs="+", action="extend", metavar="RUNG",
        help="model sizes: a width of the ladder (64 128 256 512 768), or C,layers,heads,T,B,V (default: the ladder)",
    )  # fmt: skip
    timing.add_argument("--work", nargs="+", action="extend", metavar="KIND", help="kinds of work (default: all seven)")
    timing.add_argument("--threads", type=int, metavar="N", help="of every side (default: one per core)")
    timing.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (default 5)")
    timing.add_argument("--seed", type=int, default=0, metavar="N")
    timing.add_argument(
        "--as-set", action="store_true",
        help="do not unset variables that choose a library's kernels, such as OPENBLAS_CORETYPE",
    )  # fmt: skip
    timing.add_argument("--json", metavar="FILE", help="also write every number as JSON")

    lab = command("experiment", run_experiment, "run an experiment: its figure, its numbers, its verdict")
    lab.add_argument("name", metavar="NAME", help="an experiment; list: show their names; all: run every one")
    lab.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds of each run (default 5)")
    lab.add_argument("--quick", action="store_true", help="two seeds of shortened runs, at most 30 s")
    lab.add_argument("--out", metavar="DIR", help="folder to write (default figures, or figures/quick)")
    lab.add_argument("--draw", action="store_true", help="only redraw the figure from the numbers in its JSON")
    add_workers(lab)


def run_gradcheck(arguments):
    from ..reference import TOLERANCE, failures, format_rows, gradcheck, rows_to_dicts

    write_as_json = json_writer(arguments.json)
    rows = gradcheck()
    print(format_rows(rows))
    write_as_json(rows_to_dicts(rows))
    failed = failures(rows)
    print(f"{len(rows) - len(failed)} of {len(rows)} rows at most {TOLERANCE:g}")
    return 1 if failed else 0


def run_bench(arguments):
    from ..bench import RUNGS, WORKS, bench, format_tables, parse_peers, parse_rung, to_dicts

    peers, absent = parse_peers(arguments.peers)
    rungs = RUNGS if arguments.rungs is None else [parse_rung(text) for text in arguments.rungs]
    write_as_json = json_writer(arguments.json)
    if absent:
        print_now("left out: " + "; ".join(absent))
    rows, setting = bench(
        rungs,
        tuple(WORKS) if arguments.work is None else arguments.work,
        peers,
        arguments.threads,
        arguments.rounds,
        arguments.seed,
        arguments.as_set,
        report=print_now,
    )
    print("\n" + format_tables(rows, setting, peers))
    write_as_json(to_dicts(rows, setting, peers))
    return 1 if any(row.failed for row in rows) else 0


def run_experiment(arguments):
    from ..experiments.laboratory import draw_again, experiment, headline, recipe
    from ..experiments.recipes import RECIPES
    from ..experiments.sweep import open_executor

    if arguments.name == "list":
        for number, name in enumerate(RECIPES):
            print(f"{number:>2} {name:<17} {headline(name)}")
        return 0
    names = RECIPES if arguments.name == "all" else (arguments.name,)
    for name in names:
        recipe(name)
    out = figures_folder(arguments)
    if arguments.draw:
        for name in names:
            if arguments.name != "all" or (Path(out) / f"{name}.json").exists():
                print(*draw_again(name, out), sep="\n")
        return 0
    with open_executor(arguments.jobs, arguments.dask) as executor:
        where = out, arguments.store, executor, print_now
        failed = [name for name in names if "failed" in experiment(name, arguments.seeds, arguments.quick, *where)]
    if failed and len(names) > 1:
        print(f"not finished: {', '.join(failed)}")
    return 1 if failed else 0
