"""What arrives: the study's answers, and their scrambled way to the survey."""

from __future__ import annotations

from collections import Counter

import pytest

from triggers.demo.assessment import is_plausible, oddity, score
from triggers.demo.study import (
    PAGES,
    RESPONDENTS,
    arrivals,
    arrivals_of,
    is_embedded,
    is_incomplete,
    read_answers,
)

SEED = 1996
EVERYBODY = range(1, RESPONDENTS + 1)

#: Variable → the least and the greatest code in the code book, or what the file has where that says none.
CODES = {
    "popul": (0, 7300),
    "TVnews": (0, 7),
    "selfLR": (1, 7),
    "ClinLR": (1, 7),
    "DoleLR": (1, 7),
    "PID": (0, 6),
    "age": (19, 91),
    "educ": (1, 7),
    "income": (1, 24),
    "vote": (0, 1),
}


def test_the_file_is_the_study():
    """The packaged file has 944 respondents, and each answer has a code of the code book."""
    answers = read_answers()
    assert len(answers) == RESPONDENTS
    for variable, (least, greatest) in CODES.items():
        found = [answer[variable] for answer in answers]
        assert (min(found), max(found)) == (least, greatest), variable
    assert Counter(answer["vote"] for answer in answers) == {0: 551, 1: 393}


def test_the_pages_ask_for_every_variable_once():
    """Each variable of the study stands on exactly one page."""
    assert sorted(name for names in PAGES.values() for name in names) == sorted(CODES)


def test_the_same_seed_sends_the_same():
    """What arrives depends on the seed alone, and another seed sends it in another order."""
    assert arrivals(50, SEED) == arrivals(50, SEED)
    assert arrivals(50, SEED) != arrivals(50, SEED + 1)


def test_more_respondents_change_nothing_for_those_there_are():
    """What a respondent sends, and in which order, is the same however many others there are."""
    few, many = arrivals(20, SEED), arrivals(40, SEED)
    for uid in {arrival.uid for arrival in few}:
        assert [a for a in few if a.uid == uid] == [a for a in many if a.uid == uid]


def test_respondents_are_mixed_and_each_ones_order_is_kept():
    """The arrivals of all respondents are shuffled into one another, and nothing overtakes within one of them."""
    mixed = arrivals(30, SEED)
    answers = read_answers()
    assert len({arrival.uid for arrival in mixed[:30]}) > 10
    for number in range(1, 31):
        own = arrivals_of(number, answers[number - 1], SEED)
        assert [arrival for arrival in mixed if arrival.uid == own[0].uid] == own


def test_one_in_ten_never_completes_and_one_in_five_is_embedded():
    """Exactly one respondent of each ten is incomplete, and exactly one of each five embedded."""
    for first in range(1, 941, 10):
        assert sum(is_incomplete(number, SEED) for number in range(first, first + 10)) == 1
    for first in range(1, 941, 5):
        assert sum(is_embedded(number, SEED) for number in range(first, first + 5)) == 1


def test_what_a_respondent_sends_is_sound():
    """Complete means five pages; the first page is announced right before it; isEmbedded precedes everything."""
    for number, answers in zip(EVERYBODY, read_answers(), strict=True):
        sent = arrivals_of(number, answers, SEED)
        triggers = [arrival.trigger for arrival in sent]
        pages = {arrival.kwargs["page"] for arrival in sent if arrival.trigger == "pageReceived"}
        first = triggers.index("firstPageReceived")
        assert sent[first].kwargs == sent[first + 1].kwargs
        assert triggers.index("pageReceived") == first + 1
        assert triggers.count("questionnaireComplete") == (not is_incomplete(number, SEED))
        assert (pages == set(PAGES)) is not is_incomplete(number, SEED)
        assert triggers.count("isEmbedded") == is_embedded(number, SEED) == (triggers[0] == "isEmbedded")


def test_some_messages_come_twice():
    """Some pages arrive twice, with the same key and content, and nothing else shares a key."""
    seen: dict[tuple[str, str, str], object] = {}
    repeats = 0
    for arrival in arrivals(RESPONDENTS, SEED):
        where = (arrival.uid, arrival.trigger, arrival.key)
        repeats += where in seen
        assert seen.setdefault(where, arrival.kwargs) == arrival.kwargs
    assert 0.1 < repeats / len(seen) < 0.2


@pytest.mark.parametrize(
    ("age", "educ", "tolerance", "plausible"),
    [(22, 6, 0, False), (23, 6, 2, True), (22, 6, 2, False), (19, 4, 0, True), (28, 7, 0, True)],
)
def test_an_education_takes_its_time(age, educ, tolerance, plausible):
    """An education is plausible from some age on, less a tolerance."""
    assert is_plausible(age, educ, tolerance) is plausible


@pytest.mark.parametrize(
    ("answers", "odd"),
    [
        ({"selfLR": 4, "ClinLR": 5, "DoleLR": 4}, "Clinton is placed to the right of Dole"),
        ({"selfLR": 4, "ClinLR": 4, "DoleLR": 4}, None),
        ({"PID": 1, "vote": 1}, "votes against the own party"),
        ({"PID": 5, "vote": 0}, "votes against the own party"),
        ({"PID": 3, "vote": 0}, None),
        ({"PID": 0, "vote": 0}, None),
        ({"TVnews": 7}, None),
    ],
)
def test_oddities_are_noticed(answers, odd):
    """A page is odd where its own answers do not go together."""
    assert oddity(answers) == odd


@pytest.mark.parametrize(
    ("own", "clinton", "dole", "vote", "found"),
    [
        (3, 2, 6, 0, (2, "Clinton", "Clinton", True)),
        (3, 2, 6, 1, (2, "Clinton", "Dole", False)),
        (7, 1, 6, 1, (-5, "Dole", "Dole", True)),
        (4, 2, 6, 1, (0, None, "Dole", None)),
    ],
)
def test_a_score_compares_opinion_and_vote(own, clinton, dole, vote, found):
    """A score says who is nearer, by how much, and whether the vote agrees."""
    answers = {"selfLR": own, "ClinLR": clinton, "DoleLR": dole, "vote": vote}
    proximity, nearer, voted, agrees = found
    assert score(answers) == {"proximity": proximity, "nearer": nearer, "vote": voted, "agrees": agrees}
