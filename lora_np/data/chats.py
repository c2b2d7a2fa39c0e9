"""Read a user's own conversations from a file, as prompts with completions or as messages."""

from ..checked import one_of, quoted
from .records import listed, read_records
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
