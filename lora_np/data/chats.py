"""Read a user's own conversations from a file, as prompts with completions or as messages."""

from pathlib import Path

from ..checked import one_of, quoted
from .records import SUFFIXES, listed, read_records
from .texts import read_texts
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
    chosen, rejected : lists of conversations; places : as in `read_chats`

    Raises
    ------
    FileNotFoundError, ValueError
        As in `read_chats`; also if the two answers of a row are equal.
    """
    records, sides = read_records(path), {"chosen": [], "rejected": []}
    places = [f"{records.path}, {place}" for place in records.places]
    for row, place in zip(records.rows, places):
        if not sides.keys() <= row.keys():
            raise ValueError(f"{place}: has {listed(row)}; expected prompt, chosen and rejected")
        prompt = as_messages(row.get("prompt", []), "user", "prompt", place)
        for name, side in sides.items():
            answer = as_messages(row[name], "assistant", name, place)
            side.append(messages_of({"messages": [*prompt, *answer]}, place))
        if sides["chosen"][-1] == sides["rejected"][-1]:
            raise ValueError(f"{place}: chosen and rejected are equal, expected different answers")
    return *sides.values(), places


def as_messages(value, role, name, place):
    """Return a list of messages unchanged, and a string as a list with one message."""
    return value if isinstance(value, list) else [{"role": role, "content": checked_content(value, name, place)}]


def read_prompts(path):
    """Read prompts: the column ``prompt`` of a table (strings, or messages that end with the user's), or a text file.

    Returns a list of conversations, and their places as in `read_chats`. A text file is read with `read_texts`.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        conversations = [as_messages(text, "user", "prompt", path) for text in read_texts(path)]
        return conversations, [f"{path}, text {i}" for i in range(1, len(conversations) + 1)]
    records, conversations = read_records(path), []
    places = [f"{records.path}, {place}" for place in records.places]
    for row, place in zip(records.rows, places):
        messages = as_messages(row.get("prompt"), "user", "prompt", place)
        if not messages or not isinstance(messages[-1], dict) or messages[-1].get("role") != "user":
            expected = "expected a string, or messages of which the last is the user's"
            raise ValueError(f"{place}: prompt is {quoted(messages)}, {expected}")
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
