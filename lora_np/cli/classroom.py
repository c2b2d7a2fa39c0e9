"""The command `classroom`: release exercises, grade submissions, run notebooks."""

from ..checked import shown
from .shared import json_writer, print_now, subcommands

NEXT_IN_NBGRADER = """next, for one set:
  cd {folder}
  nbgrader generate_assignment {name}
  (hand out release/{name}; collect the submissions: python -m lora_np classroom collect {folder} NOTEBOOK …)
  nbgrader autograde {name}
  (grade the written answers: nbgrader formgrade)
  nbgrader generate_feedback {name}
"""


def add_commands(command):
    text = "lessons and exercises: release DIR, grade NOTEBOOK …, execute NOTEBOOK …"
    action = subcommands(command("classroom", None, text), "action", "ACTION")

    book = command("book", run_book, "build a website of the lessons, exercises, results and reference (extra: book)")
    book.add("folder DIR", "folder to write; open DIR/index.html")

    jobs = {"text": "number of processes (default 2)", "default": 2}
    releasing = action("release", run_release, "write the students' notebooks and the worked solutions")
    releasing.add("folder DIR", "folder to write")
    releasing.add("--nbgrader", "write an nbgrader course instead")
    releasing.add("--force", "overwrite existing notebooks")

    grade = action("grade", run_grade, "run submitted notebooks, and report marks and feedback")
    grade.add("notebooks NOTEBOOK …", "a notebook, or a folder of notebooks")
    grade.add("--sandbox", "run the notebooks without access to the network or files (Linux, bubblewrap)")
    grade.add("--draw NAME", "name that determines the random test inputs; use a new one for each term")
    grade.add("--out DIR", "also write marks.csv, an overview of the class, and feedback for each student")
    grade.add("--words FILE", "CSV file with points for written answers (default DIR/words.csv)")
    grade.add("--moodle FILE", "Moodle's grading worksheet, to fill in with the marks")
    grade.add("--canvas FILE", "Canvas's gradebook, to fill in with the marks")
    grade.add("--assignment NAME", "the gradebook's column for this assignment (default: the only one)")
    grade.add("--json FILE", "also write marks and feedback as JSON")
    grade.add("--jobs N", **jobs)

    collect = action("collect", run_collect, "copy submitted notebooks, under any file names, into an nbgrader course")
    collect.add("course DIR", "the course that `release --nbgrader` wrote")
    collect.add("notebooks NOTEBOOK …", "a notebook, or a folder of notebooks")

    execute = action("execute", run_execute, "run notebooks in new kernels and store their outputs")
    execute.add("notebooks NOTEBOOK …")
    execute.add("--check", "write nothing; compare with the stored outputs")
    execute.add("--jobs N", **jobs)


def run_book(arguments):
    from ..classroom.book import build

    build(arguments.folder)
    print(f"{arguments.folder}/index.html")


def run_release(arguments):
    from ..classroom.release import release
    from ..classroom.sets import read_sets

    written = release(arguments.folder, arguments.nbgrader, arguments.force)
    print(f"{len(read_sets())} exercise sets, {len(written)} files; saved in {shown(arguments.folder)}")
    if arguments.nbgrader:
        print(NEXT_IN_NBGRADER.format(folder=arguments.folder, name=next(iter(read_sets()))), end="")


def run_grade(arguments):
    from ..classroom.exercise import GRADING
    from ..classroom.gradebooks import check_tables
    from ..classroom.grading import Graded, grade_all
    from ..classroom.marks import as_dict, check_places, read_words, report, write_class
    from ..classroom.submissions import check_sandbox, find_submissions
    from ..training.sweep import worker_count

    jobs, paths = worker_count(arguments.jobs), find_submissions(arguments.notebooks)
    lms = (arguments.moodle, arguments.canvas, arguments.assignment)
    write_as_json = json_writer(arguments.json, paths)
    if arguments.out is not None:
        check_places(arguments.out, paths)
        read_words(arguments.out, arguments.words)  # to report a mistake in these files before the grading
        check_tables(*lms)
    elif arguments.words or arguments.moodle or arguments.canvas:
        raise ValueError("out: got no folder for the class's files, expected --out DIR")
    if arguments.sandbox:
        check_sandbox()
    results, entries, lines = {}, {}, []
    for path, result in grade_all(paths, arguments.draw or GRADING, arguments.sandbox, jobs):
        results[path] = result
        if isinstance(result, Graded):
            entries[path] = as_dict(result)
            lines.append(f"{result.score:6g} of {result.points:<4g} {path}")
            print_now(report(result) + "\n")
        else:
            entries[path] = {"error": str(result)}
            lines.append(f"not gradable   {result}")
        write_as_json(entries)  # after each notebook, so that nothing is lost if a later one crashes
    if arguments.out is not None:
        write_class(arguments.out, results, arguments.words, *lms)
    print("\n".join(lines))
    return 1 if any("error" in entry for entry in entries.values()) else 0


def run_collect(arguments):
    from ..classroom.marks import collect
    from ..classroom.submissions import find_submissions

    places = collect(arguments.course, find_submissions(arguments.notebooks))
    failed = [str(place) for place in places.values() if isinstance(place, ValueError)]
    print("\n".join(f"{path} -> {place}" for path, place in places.items() if str(place) not in failed))
    print("\n".join(f"not collected: {error}" for error in failed), end="\n" * bool(failed))
    return 1 if failed else 0


def run_execute(arguments):
    from ..classroom.notebooks import run_all
    from ..training.sweep import worker_count

    wrong = run_all(arguments.notebooks, arguments.check, worker_count(arguments.jobs), report=print_now)
    print(f"{len(arguments.notebooks)} notebooks, {len(wrong)} problems")
    return 1 if wrong else 0
