"""Documents, messages, docstrings and comments use the usual words.

Each entry of `PHRASES` is a word that made native readers stumble, the word to use instead, and the reason. Inline code
is exempt, because names in the code are not prose.
"""

from __future__ import annotations

import re
import textwrap
from typing import NamedTuple

import pytest

from tests.style.sources import PARTS, ROOT, Text, files, python_texts, texts

#: The documents that people read. Folders with a leading dot belong to tools.
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)

PYTHON = re.compile(r"^(?P<indent> *)```python.*\n(?P<code>(?:.*\n)*?)(?P=indent)```$", re.MULTILINE)
CODE = re.compile(r"(?<!`)(`{1,2})(?!`)[^`]+\1(?!`)")

#: Names of stored columns, attributes and arguments. They are documented without backquotes.
STORED = re.compile(r"^\s*(handovers|room)(?=:|$)", re.MULTILINE)


class Phrase(NamedTuple):
    """A regular expression, what to write instead, why, and a sentence in which the expression finds something.

    A space in the expression matches any whitespace, so that a phrase is found across lines.
    """

    pattern: str
    instead: str
    reason: str
    example: str

    def find(self, text: str) -> list[re.Match[str]]:
        return list(re.finditer(self.pattern.replace(" ", r"\s+"), text, re.IGNORECASE))


VAGUE = "The usual word says what happens."
PRIVATE = "The field has a standard term for this."
UNIDIOMATIC = "Native readers stumble over it."

PHRASES = [
    Phrase(
        r"\bhand(s|ed|ing)? (\w+ ){0,2}over\b|\bhand-?overs?\b",
        "dispatch",
        PRIVATE,
        "It is handed over to a runner.",
    ),
    Phrase(
        r"\b(gives?|gave|given|giving) ((it|them|the \w+|an? \w+) )?back\b",
        "return, return to the queue",
        PRIVATE,
        "The worker gives the instance back.",
    ),
    Phrase(
        r"\b(is|are|was|were|be|been|stays?|stayed|runs?) away\b",
        "unavailable",
        VAGUE,
        "The storage is away.",
    ),
    Phrase(r"\b(lets?|letting) ([\w']+ ){0,2}go\b", "release, delete", VAGUE, "It lets its work go."),
    Phrase(r"\bgone\b", "released, deleted, lost", VAGUE, "The file is gone."),
    Phrase(r"\b(gives?|gave|given|giving) ((it|them) )?up\b", "skip, stop trying", VAGUE, "It is given up."),
    Phrase(r"\bmend(s|ed|ing)?\b", "fix", UNIDIOMATIC, "Mend it."),
    Phrase(r"\bslips?\b", "typo, mistake", UNIDIOMATIC, "A slip of the pen."),
    Phrase(
        r"(?<!\bthere\s)(?<!\bwhere\s)\b(is|are|was|were) no (?!longer\b|more\b)",
        "is not a valid, is not a",
        UNIDIOMATIC,
        "'x' is no URL.",
    ),
    Phrase(r"\bnobody need\b", "a full sentence: nobody has to", UNIDIOMATIC, "Nobody need review it."),
    Phrase(r"\bwhoever\b", "anyone who, the process that", UNIDIOMATIC, "Whoever fires waits."),
    Phrase(
        r"\bfloors?\b|\brooms?\b|\bhouse\b",
        "layer, module, architecture; space, capacity",
        PRIVATE,
        "The floors of the house.",
    ),
    Phrase(
        r"\bwhat (stands|is failed|is due)\b",
        "the current state, failed instances, due instances",
        UNIDIOMATIC,
        "It shows what stands.",
    ),
    Phrase(r"\bonly in it\b", "a full sentence", UNIDIOMATIC, "It is only in it."),
    Phrase(r"\bhow long what\b", "a full sentence", UNIDIOMATIC, "It says how long what runs may go on."),
    Phrase(
        r"\bwhere (one machine|it|this) is not\b",
        "when … is not enough",
        UNIDIOMATIC,
        "Where one machine is not.",
    ),
    Phrase(
        r"\basked about is not so\b",
        "the condition does not hold",
        UNIDIOMATIC,
        "The thing asked about is not so.",
    ),
    Phrase(r"\banew\b", "again", "It is literary.", "It is decided anew."),
    Phrase(r"\basks? (for a|for its|for) review\b", "needs a review", UNIDIOMATIC, "It asks for a review."),
    Phrase(r"\bfor ever\b", "forever", "Documents and code use American spelling.", "It waits for ever."),
    Phrase(r"\b(goes|go|went|going) on\b", "continue", VAGUE, "The worker goes on."),
    Phrase(r"\bshut(s|ting)? (\w+ ){0,3}out\b", "loses its claim", PRIVATE, "It is shut out."),
    Phrase(r"\bcomes? of (it|this|that|them)\b", "the result", UNIDIOMATIC, "What comes of it."),
    Phrase(r"\bin (the )?place of\b", "instead of", UNIDIOMATIC, "In the place of a task."),
    Phrase(r"\bbehind the curtain\b", "private members", "It is a metaphor.", "It looks behind the curtain."),
    Phrase(r"\bghosts?\b", "stale worker", PRIVATE, "It is a ghost."),
    Phrase(r"\bpatien(ce|tly)\b", "timeout; with retries", PRIVATE, "Its patience is over."),
    Phrase(r"\bfates?\b", "the outcome of a commit; in doubt", PRIVATE, "Its fate is open."),
    Phrase(
        r"\b(final|serial|normal|initial|parametr|recogn|organ|synchron)is(e|es|ed|ing|ation)\b"
        r"|\bbehaviours?\b|\bcolour\w*",
        "American spelling: finalize, behavior, color",
        "Names in the API are spelled so: `finalized`.",
        "It is finalised.",
    ),
]


def odd(found: list[Text]) -> list[str]:
    """A line for each odd word in these texts: where it is, what it is, what to write instead, and why."""
    return [
        f"{begin + prose.count(chr(10), 0, match.start())}: {' '.join(match[0].split())!r}: "
        f"write {phrase.instead!r}. {phrase.reason}"
        for begin, text in found
        for prose in [STORED.sub(_blank, CODE.sub(_blank, text))]
        for phrase in PHRASES
        for match in phrase.find(prose)
    ]


def _blank(code: re.Match[str]) -> str:
    """What replaces code: a word that no phrase contains, and the line breaks of the code."""
    return "code" + "\n" * code[0].count("\n")


def in_document(text: str) -> list[Text]:
    """The prose of a document, and the strings and comments of its Python examples."""
    examples = [
        Text(text.count("\n", 0, block.start("code")) + line, string)
        for block in PYTHON.finditer(text)
        for line, string in python_texts(textwrap.dedent(block["code"]))
    ]
    return [Text(1, PYTHON.sub(_blank, text)), *examples]


def odd_in_code(part: str) -> list[str]:
    """The odd words in a part of the package, each with its file and line."""
    return [
        f"{path.relative_to(ROOT)}:{problem}"
        for path in files(part, ".py", ".sql", ".lua")
        for problem in odd(texts(path))
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_documents_use_the_usual_words(document):
    """No document contains an odd word, in its prose or in the comments of its examples."""
    assert odd(in_document(document.read_text("utf-8"))) == []


@pytest.mark.parametrize("part", sorted(PARTS))
def test_code_uses_the_usual_words(part):
    """No message, docstring or comment of the package contains an odd word."""
    assert odd_in_code(part) == []


@pytest.mark.parametrize("phrase", PHRASES, ids=lambda phrase: phrase.instead)
def test_each_phrase_is_found(phrase):
    """Each expression finds its example, also if a line ends between two words."""
    assert phrase.find(phrase.example)
    assert phrase.find(phrase.example.replace(" ", "\n"))


def test_words_in_inline_code_are_exempt():
    """A name in the code is not prose; a word beside it is, and its line is known."""
    assert odd([Text(1, "Set `room=10` or ``fate``.")]) == []
    assert [problem.partition(":")[0] for problem in odd([Text(7, "Set `x\n`,\n`y`, and mend it.")])] == ["9"]


def test_comments_of_examples_are_read():
    """In an example of a document, names are code; comments are prose, and their line is known."""
    text = "Text.\n\n- item\n\n  ```python\n  fate = 1\n  fate += 1  # mend\n  ```\n\nIt is gone.\n"
    assert [problem.split(":")[:2] for problem in odd(in_document(text))] == [
        ["10", " 'gone'"],
        ["7", " 'mend'"],
    ]


def test_all_texts_of_a_python_file_are_read(tmp_path):
    """Docstrings, messages (also those with values in them) and comments over several lines are read."""
    path = tmp_path / "example.py"
    path.write_text('"""Mend."""\n\nx = 1\ny = f"gone: {x}"  # a hand\n# over\n', "utf-8")
    assert [problem.split(":")[:2] for problem in odd(texts(path))] == [
        ["1", " 'Mend'"],
        ["4", " 'gone'"],
        ["4", " 'hand over'"],
    ]


def test_comments_of_sql_are_read(tmp_path):
    """In a SQL or Lua file, only the comments are prose."""
    path = tmp_path / "example.sql"
    path.write_text("SELECT 'gone' -- mend\nFROM gone\n", "utf-8")
    assert [problem.split(":")[:2] for problem in odd(texts(path))] == [["1", " 'mend'"]]
