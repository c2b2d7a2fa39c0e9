"""Render chat templates. `chat.py` runs this script in a child process, because a template is a program.

The template may be malicious. Jinja's sandbox prevents templates from accessing Python's internals and from modifying
their arguments. The child process limits its own memory and output length; the parent process limits the running time.
Templates can use the same variables and functions as in transformers (``utils/chat_template_utils.py``).
"""

import json
import sys
from datetime import datetime  # only to format the caller's date; this file never reads the clock

MEMORY = 2**30  # bytes; enforced only on systems that can limit memory


def compiled(text, now):
    """Compile a template into a function of its variables. Without `now`, `strftime_now` is undefined."""
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """Ignore ``{% generation %}``, which marks the answers in transformers; `chat.py` finds them itself."""

        tags = {"generation"}

        def parse(self, parser):
            next(parser.stream)
            return parser.parse_statements(["name:endgeneration"], drop_needle=True)

    class Namespace(jinja2.utils.Namespace):
        def __init__(*args, **fields):
            self, *args = args
            jinja2.utils.Namespace.__init__(self)
            for name, value in dict(*args, **fields).items():
                self[name] = value

        def __setitem__(self, name, value):
            if str(name).startswith("_"):
                raise jinja2.exceptions.SecurityError(f"{name!r} is not allowed in a namespace")
            jinja2.utils.Namespace.__setitem__(self, name, value)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {"raise_exception": raise_exception, "namespace": Namespace}
    environment.globals["dict"] = lambda *args, **fields: dict(*args, **fields)
    if now:
        environment.globals["strftime_now"] = datetime.fromisoformat(now).strftime
    return environment.from_string(text).generate


def limit_memory():
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    except (ImportError, ValueError, OSError):
        pass  # the system cannot limit memory


def texts(template, special, now, jobs, longest):
    """Yield the template's output for each job. If a job fails, yield [type of the error, its message] and stop.

    Parameters
    ----------
    template : str
    special : dict, name -> text of a special token
    now : str, a date and time in ISO 8601 format, or None
    jobs : list of (messages, whether to append the header of an answer)
    longest : int, the maximum total number of characters of all texts
    """
    try:
        generate = compiled(template, now)
        for messages, begins_answer in jobs:
            pieces = []
            for piece in generate(messages=messages, add_generation_prompt=begins_answer, **special):
                pieces.append(piece)
                longest -= len(piece)
                if longest < 0:
                    raise MemoryError("its output is too long")
            yield "".join(pieces)
    except Exception as error:
        yield [type(error).__name__, str(error)[:500]]


if __name__ == "__main__":
    given = json.load(sys.stdin)
    sys.path[:] = given.pop("path")
    limit_memory()
    for line in texts(**given):
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
