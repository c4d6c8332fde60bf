"""The American National Election Study of 1996, and the messages with its answers, page by page.

The answers are real; the order of the messages is random, from a seed. It depends only on the seed and the
respondent, so that a run with more respondents continues one with fewer.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from importlib.resources import files
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Page of the questionnaire → the variables that it asks for.
PAGES = {
    "subject": ("age", "educ", "income"),
    "place": ("popul",),
    "media": ("TVnews",),
    "opinion": ("selfLR", "ClinLR", "DoleLR"),
    "vote": ("PID", "vote"),
}

#: Respondents in the study.
RESPONDENTS = 944

#: One respondent in so many never completes the questionnaire.
INCOMPLETE_IN = 10

#: One respondent in so many answers inside a mobile application.
EMBEDDED_IN = 5

#: Fraction of the pages that arrive twice.
REPEATED = 0.15

_BROWSERS = ("Netscape Navigator 3.0", "Internet Explorer 3.0", "Lynx 2.6")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message that reaches the survey's server.

    Attributes:
        uid: the session to which it belongs.
        trigger: the trigger that it fires.
        key: the idempotency key, the same each time the message arrives.
        kwargs: its contents.
    """

    uid: str
    trigger: str
    key: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def uid_of(number: int) -> str:
    """Return the UID of a respondent's session; respondents are numbered from 1."""
    return f"respondent-{number:03}"


def read_answers() -> list[dict[str, int]]:
    """Return variable → answer for each respondent, in the order of the study."""
    lines = files("triggers.demo").joinpath("anes96.tsv").read_text("ascii").splitlines()
    return [
        {name: int(value) for name, value in row.items()} for row in csv.DictReader(lines, delimiter="\t")
    ]


def is_incomplete(number: int, seed: int) -> bool:
    """Whether the respondent never completes: exactly one in each ten."""
    return _is_chosen(number, INCOMPLETE_IN, f"{seed}/incomplete")


def is_embedded(number: int, seed: int) -> bool:
    """Whether the respondent answers inside a mobile application: exactly one in each five."""
    return _is_chosen(number, EMBEDDED_IN, f"{seed}/embedded")


def arrivals_of(number: int, answers: Mapping[str, int], seed: int) -> list[Arrival]:
    """Return the messages of one respondent's questionnaire, in the order in which they arrive.

    The pages arrive in any order, some of them twice, and the message that the questionnaire is complete may
    arrive before them. The first page is also announced by a message of its own. That the questionnaire is
    embedded always arrives first, because a server sees this in the address of the first request.
    """
    dice = Random(f"{seed}/{number}")  # noqa: S311 - a seeded shuffle needs no cryptography
    uid, embedded = uid_of(number), is_embedded(number, seed)
    sent = [
        Arrival(uid, "pageReceived", f"page-{page}", _page(page, answers, None if embedded else dice))
        for page in PAGES
    ]
    dice.shuffle(sent)
    if is_incomplete(number, seed):
        sent = sent[: dice.randrange(1, len(PAGES))]
    first = sent[0]
    for page in sent.copy():
        if dice.random() < REPEATED:
            sent.insert(dice.randrange(sent.index(page) + 1, len(sent) + 1), page)
    if not is_incomplete(number, seed):
        complete = Arrival(uid, "questionnaireComplete", "complete", {"pages": len(PAGES)})
        sent.insert(dice.randrange(len(sent) + 1), complete)
    sent.insert(sent.index(first), Arrival(uid, "firstPageReceived", "first-page", first.kwargs))
    return [Arrival(uid, "isEmbedded", "embedded", {"application": "PollBook"}), *sent] if embedded else sent


def arrivals(respondents: int, seed: int) -> list[Arrival]:
    """Return all messages, shuffled across the respondents; the order of each respondent is kept.

    Args:
        respondents: how many respondents, beginning with the first; at most :data:`RESPONDENTS`.
        seed: the seed of all random choices.
    """
    lines = [
        arrivals_of(number, answers, seed)
        for number, answers in enumerate(read_answers()[:respondents], start=1)
    ]
    turns = [line for line, sent in enumerate(lines) for _ in sent]
    Random(f"{seed}/turns").shuffle(turns)  # noqa: S311 - a seeded shuffle needs no cryptography
    queues = [iter(sent) for sent in lines]
    return [next(queues[line]) for line in turns]


def _page(page: str, answers: Mapping[str, int], dice: Random | None) -> dict[str, Any]:
    """Return the contents of a page's message; only browsers, which have `dice`, name themselves."""
    sent: dict[str, Any] = {"page": page, "answers": {name: answers[name] for name in PAGES[page]}}
    return sent if dice is None else sent | {"browser": dice.choice(_BROWSERS)}


def _is_chosen(number: int, one_in: int, seed: str) -> bool:
    group, place = divmod(number - 1, one_in)
    return Random(f"{seed}/{group}").randrange(one_in) == place  # noqa: S311 - a seeded choice needs no cryptography
