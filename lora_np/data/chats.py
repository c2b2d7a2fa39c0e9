"""Read a user's own conversations from a file, as prompts with completions or as messages."""

from ..checked import one_of, quoted
from .records import listed, read_records
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
    records = read_records(path)
    places = [f"{records.path}, {place}" for place in records.places]
    return [messages_of(row, place) for row, place in zip(records.rows, places)], places


def read_pairs(path):
    """Read pairs of a preferred and a rejected answer, in the format of Hugging Face's TRL.

    Parameters
    ----------
    path : as in `read_chats`. A row has ``prompt``, ``chosen`` and ``rejected``, strings or lists of messages; if
        ``chosen`` and ``rejected`` are entire conversations, there is no ``prompt``

    Returns
    -------
    chosen, rejected : lists of lists of messages
    places : as in `read_chats`

    Raises
    ------
    FileNotFoundError, ValueError
        As in `read_chats`; also if the two answers of a row are equal.
    """
    records = read_records(path)
    places = [f"{records.path}, {place}" for place in records.places]
    sides = []
    for name in ("chosen", "rejected"):
        sides.append([pair_messages(row, name, place) for row, place in zip(records.rows, places)])
    for chosen, rejected, place in zip(*sides, places):
        if chosen == rejected:
            raise ValueError(f"{place}: chosen and rejected are equal, expected different answers")
    return *sides, places


def pair_messages(row, name, place):
    """Return the messages of one side of a pair."""
    if not {"chosen", "rejected"} <= row.keys():
        raise ValueError(f"{place}: has {listed(row)}; expected prompt, chosen and rejected")
    answer = as_messages(row[name], "assistant", name, place)
    return messages_of({"messages": [*as_messages(row.get("prompt", []), "user", "prompt", place), *answer]}, place)


def as_messages(value, role, name, place):
    """Return a list of messages as it is, and a string as a list with one message."""
    return value if isinstance(value, list) else [{"role": role, "content": checked_content(value, name, place)}]


def read_prompts(path):
    """Read prompts from the column ``prompt`` of a file (strings, or lists of messages), or from the lines of a text.

    Returns
    -------
    conversations : list of lists of messages, each of which ends with the user's
    places : as in `read_chats`
    """
    if not str(path).lower().endswith((".csv", ".tsv", ".jsonl", ".json")):
        lines = [line.strip() for line in read_utf8(path).splitlines()]
        found = [(line, f"{path}, line {i}") for i, line in enumerate(lines, 1) if line]
        if not found:
            raise ValueError(f"{path} has no prompts; expected one in each line")
        return [as_messages(line, "user", "prompt", place) for line, place in found], [place for _, place in found]
    records = read_records(path)
    places = [f"{records.path}, {place}" for place in records.places]
    conversations = []
    for row, place in zip(records.rows, places):
        if "prompt" not in row:
            raise ValueError(f"{place}: has {listed(row)}; expected prompt")
        messages = as_messages(row["prompt"], "user", "prompt", place)
        if (
            not messages
            or not all(isinstance(message, dict) for message in messages)
            or messages[-1].get("role") != "user"
        ):
            raise ValueError(
                f"{place}: prompt is {quoted(row['prompt'])}, expected a string, or messages that end with the user's"
            )
        conversations.append(messages)
    return conversations, places


def messages_of(row, place):
    """Return the messages of a row; raise ValueError if it has no answer to train on."""
    if ("messages" in row) == ("prompt" in row or "completion" in row):
        expected = "expected either prompt and completion, or messages"
        raise ValueError(f"{place}: has {listed(row)}; {expected}; for labelled texts, name the text and label columns")
    if "messages" not in row:
        prompt, completion = (checked_content(row.get(name), name, place) for name in ("prompt", "completion"))
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    else:
        messages = row["messages"]
        if not isinstance(messages, list):
            raise ValueError(f"{place}: messages is {quoted(messages)}, expected a list of objects")
        for i, message in enumerate(messages):
            if not isinstance(message, dict):
                raise ValueError(f"{place}: messages[{i}] is {quoted(message)}, expected an object")
            one_of(f"{place}: messages[{i}]: role", message.get("role"), ROLES)
            checked_content(message.get("content"), f"messages[{i}]: content", place)
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
