"""The command `reference`: write the reference vectors, list them, or check a port's outputs."""

from .shared import json_writer, print_now, subcommands


def add_commands(command):
    vectors = "folder of the vectors (default: those in this repository)"
    text = "reference vectors for ports: export DIR, list, check DIR"
    action = subcommands(command("reference", None, text), "action", "ACTION")

    write = action("export", run_export, "compute all reference vectors and write them")
    write.add("folder DIR", "folder to write")

    names = action("list", run_list, "list the cases: what each computes and which mistake it detects")
    names.add("--vectors DIR", vectors)

    checking = action("check", run_check, "compare a port's outputs with the vectors; report the first difference")
    checking.add("folder DIR", "folder of the port's outputs; SPEC.md defines the file names")
    several = {"nargs": "+", "action": "extend", "default": []}
    checking.add("--case ID", "only these cases, such as lora or 'model-*'", **several)
    checking.add("--tier N", "only this tier, such as 2", **several)
    checking.add("--dtype", "only this dtype (default: all in the folder)", choices=["float64", "float32"], **several)
    checking.add("--first", "stop at the first case that differs")
    checking.add("--vectors DIR", vectors)
    checking.add("--json FILE", "also write the results as JSON")


def run_export(arguments):
    from ..reference import MANIFEST, VECTORS, compare_exports, export

    manifest = export(arguments.folder, report=print_now)
    print(f"{len(manifest['cases'])} cases in {arguments.folder}, each in float64 and float32")
    if not (VECTORS / MANIFEST).is_file() or VECTORS.samefile(arguments.folder):
        return 0
    agree, text = compare_exports(arguments.folder)
    print(text)
    return 0 if agree else 1


def run_list(arguments):
    from ..reference import load_manifest

    for id, entry in load_manifest(arguments.vectors)[0].items():
        print(f"{entry['tier']} {id:<26} {entry['description']}\n  {'':<26} detects: {entry['catches']}")
    return 0


def run_check(arguments):
    from ..reference import VECTORS, check, exit_code, format_result, format_summary, format_vectors, to_dicts

    write_as_json = json_writer(arguments.json, sources=(arguments.folder, arguments.vectors or VECTORS))

    def report(result):
        if text := format_result(result):
            print_now(text)

    settings = arguments.case, arguments.tier, arguments.dtype, arguments.vectors
    results, complaints = check(arguments.folder, *settings, report=report, first=arguments.first)
    write_as_json(to_dicts(results, complaints))
    print(format_vectors(arguments.vectors))
    print(format_summary(results, complaints))
    return exit_code(results, complaints)
