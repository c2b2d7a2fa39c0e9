"""Read a user's own conversations from a file, as prompts with completions or as messages."""

from pathlib import Path

from ..checked import one_of, quoted
from .records import SUFFIXES, listed, read_records
from .texts import read_utf8
from .tokenizer import SURROGATE

ROLES = ("system", "user", "assistant")


def read_chats(path):
    """Read conversations to train on.

    Parameters
    ----------
    path : str or Path of a file that `read_records` can read, usually ``.jsonl``. A row has either ``prompt`` and
        ``completion``, both strings, or ``messages``, a list of objects with ``role`` (system, user or assistant) and
        ``content``. Other fields of a row are ignored; other fields of a message are passed to the chat template

    Returns
    -------
    conversations : list of lists of messages; a prompt becomes a user message, and its completion an assistant message
    places : list of str, where each conversation was found, such as "chats.jsonl, row 2, line 3"

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        See `read_records`; also if a row has both forms, neither, or no answer to train on. The message names the line.
    """
    rows, places = placed_rows(path)
    return [messages_of(row, place) for row, place in zip(rows, places)], places


def placed_rows(path):
    """Read a table; return its rows and, for messages, the place of each."""
    records = read_records(path)
    return records.rows, [f"{records.path}, {place}" for place in records.places]


def read_pairs(path):
    """Read pairs of a preferred and a rejected answer, in the format of Hugging Face's TRL.

    Parameters
    ----------
    path : as in `read_chats`. A row has ``prompt``, ``chosen`` and ``rejected``, strings or lists of messages. If
        ``chosen`` and ``rejected`` are entire conversations, ``prompt`` is ignored

    Returns
    -------
    chosen, rejected : lists of conversations; places : as in `read_chats`

    Raises
    ------
    FileNotFoundError, ValueError
        As in `read_chats`; also if two conversations do not differ in their last message, an answer, and only there.
    """
    (rows, places), sides = placed_rows(path), {"chosen": [], "rejected": []}
    for row, place in zip(rows, places):
        if not sides.keys() <= row.keys():
            raise ValueError(f"{place}: has {listed(row)}; expected prompt, chosen and rejected")
        for name, side in sides.items():
            answer = as_messages(row[name], "assistant", name, place)
            entire = answer[:1] and answer[0]["role"] != "assistant"
            prompt = [] if entire else as_messages(row.get("prompt", []), "user", "prompt", place)
            side.append(messages_of({"messages": [*prompt, *answer]}, place))
        chosen, rejected = (side[-1] for side in sides.values())
        if chosen[:-1] != rejected[:-1] or any(side[-1]["role"] != "assistant" for side in (chosen, rejected)):
            raise ValueError(f"{place}: expected chosen and rejected to be answers to the same prompt")
        if chosen == rejected:
            raise ValueError(f"{place}: chosen and rejected are equal, expected different answers")
    return *sides.values(), places


def as_messages(value, role, name, place):
    """Check a list of messages and return it; return a string as a list with one message."""
    if not isinstance(value, list):
        return [{"role": role, "content": checked_content(value, name, place)}]
    for i, message in enumerate(value):
        if not isinstance(message, dict):
            raise ValueError(f"{place}: {name}[{i}] is {quoted(message)}, expected an object")
        one_of(f"{place}: {name}[{i}]: role", message.get("role"), ROLES)
        checked_content(message.get("content"), f"{name}[{i}]: content", place)
    return value


def read_prompts(path):
    """Read prompts: the lines of a ``.txt`` file, or a table's column ``prompt``, strings or lists of messages.

    Returns a list of conversations that end with the user's message, and their places as in `read_chats`.
    """
    if Path(path).suffix.lower() == ".txt":
        lines = [(i, line.strip()) for i, line in enumerate(read_utf8(path).splitlines(), 1) if line.strip()]
        rows, places = [{"prompt": line} for _, line in lines], [f"{path}, line {i}" for i, _ in lines]
        if not rows:
            raise ValueError(f"{path} has no text; expected a prompt in each line")
    elif Path(path).suffix.lower() in SUFFIXES:
        rows, places = placed_rows(path)
    else:
        raise ValueError(f"prompts: got {str(path)!r}, expected a file whose name ends in .txt, {', '.join(SUFFIXES)}")
    for row, place in zip(rows, places):
        if "prompt" not in row:
            raise ValueError(f"{place}: has {listed(row)}; expected a column prompt")
    conversations = [as_messages(row["prompt"], "user", "prompt", place) for row, place in zip(rows, places)]
    for messages, place in zip(conversations, places):
        if not messages or messages[-1]["role"] != "user":
            raise ValueError(f"{place}: expected prompt to end with a user's message")
    return conversations, places


def messages_of(row, place):
    """Return the messages of a row; raise ValueError if it has no answer to train on."""
    if ("messages" in row) == ("prompt" in row or "completion" in row):
        expected = "expected either prompt and completion, or messages"
        raise ValueError(
            f"{place}: has {listed(row)}; {expected}; for labelled texts, name the columns (--text, --label)"
        )
    if "messages" not in row:
        prompt, completion = (checked_content(row.get(name), name, place) for name in ("prompt", "completion"))
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    else:
        messages = row["messages"]
        if not isinstance(messages, list):
            raise ValueError(f"{place}: messages is {quoted(messages)}, expected a list of objects")
        as_messages(messages, "", "messages", place)
    if not any(message["role"] == "assistant" and message["content"].strip() for message in messages):
        raise ValueError(f"{place}: has no answer to train on; expected a completion or an assistant message")
    return messages


def checked_content(value, name, place):
    """Return the value; raise ValueError unless it is a string that UTF-8 can encode."""
    if not isinstance(value, str):
        raise ValueError(f"{place}: {name} is {'missing' if value is None else quoted(value)}, expected a string")
    if SURROGATE.search(value):
        raise ValueError(f"{place}: {name} has a lone surrogate, which UTF-8 cannot encode")
    return value
