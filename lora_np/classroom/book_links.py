"""Link the glossary's terms and the names of papers in the book's pages; Sphinx calls `link_words` for each page."""

import functools
import re
from itertools import groupby

GLOSSARY, PAPERS = "notebooks/GLOSSARY", "notebooks/PAPERS"


@functools.cache
def read_words(env):
    """Collect the words to link: those in bold type in the parsed glossary and list of papers.

    Returns
    -------
    dict from a word in lower case to (address, explanation), where the address is an entry's id in the glossary or a
    paper's URL
    """
    from docutils import nodes

    words = {}
    for entry in env.get_doctree(GLOSSARY)[0].findall(nodes.section, include_self=False):
        for word in entry.findall(nodes.strong):
            sentence, dot, _ = next(entry.findall(nodes.paragraph)).astext().replace("\n", " ").partition(". ")
            words[word.astext().replace("\n", " ").lower()] = entry["ids"][0], sentence + dot.strip()
    for entry in env.get_doctree(PAPERS).findall(nodes.list_item):
        paper = next(entry.findall(nodes.reference))
        for word in entry.findall(nodes.strong):
            words[word.astext().lower()] = paper["refuri"], paper.astext().replace("\n", " ")
    return words


def pattern(words):
    """Return a pattern that finds the words, longest first, and their plurals; a phrase may span two lines."""
    names = "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in sorted(words, key=len, reverse=True))
    return re.compile(rf"(?<![\w-])({names})s?(?![\w-])", re.IGNORECASE)


def link_words(app, doctree, page):
    """Link each paper's name, and the first use of each glossary entry, in a page's running text.

    In the API reference, only papers are linked, because common words of the glossary often mean something else there.
    """
    from docutils import nodes
    from sphinx.addnodes import desc_signature, index

    if page == PAPERS:
        return
    words = read_words(app.env)
    find, linked = pattern(words), set()
    glossary = app.builder.get_relative_uri(page, GLOSSARY)
    left = (nodes.title, nodes.thead, nodes.term, nodes.literal, nodes.math, nodes.FixedTextElement)
    left += (nodes.reference, nodes.Invisible, desc_signature)

    def with_links(text):
        end = 0
        for match in find.finditer(text):
            address, explanation = words[re.sub(r"\s+", " ", match[1]).lower()]
            paper = address.startswith("https:")
            if paper or address not in linked and not page.startswith("api/"):
                yield nodes.Text(text[end : match.start()])
                linked.add(address)
                uri = address if paper else f"{glossary}#{address}"
                kind = {"classes": ["paper" if paper else "term"], "internal": not paper}
                yield nodes.reference("", match[0], refuri=uri, reftitle=explanation, **kind)
                end = match.end()
        yield nodes.Text(text[end:])

    def visit(node):
        if page == GLOSSARY and isinstance(node.parent, nodes.section) and isinstance(node, nodes.section):
            linked.clear()
            linked.add(node["ids"][0])  # an entry does not link to itself
            entries = [("single", word.astext(), node["ids"][0], "main", None) for word in node.findall(nodes.strong)]
            node += index(entries=entries)  # so that a search for a word shows its entry first
        children = []
        for is_text, run in groupby(node.children, lambda child: isinstance(child, nodes.Text)):
            if is_text:  # MyST makes one Text of each line
                children += with_links("".join(run))
            else:
                for child in run:
                    if not isinstance(child, left):
                        visit(child)
                    children.append(child)
        node[:] = children

    visit(doctree)
