"""Assesses answers: which are odd, which are implausible, and how a vote compares with an opinion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Level of education, as numbered in the code book of the study → the youngest plausible age, in years.
PLAUSIBLE_FROM = {5: 22, 6: 25, 7: 28}

#: The candidates, by the value of `vote`.
CANDIDATES = ("Clinton", "Dole")

#: Party identification: up to the first value Democratic, from the second on Republican.
DEMOCRAT, REPUBLICAN = 1, 5


def is_plausible(age: int, educ: int, tolerance: int) -> bool:
    """Whether a respondent of that age, plus the tolerance in years, can have that education."""
    return age + tolerance >= PLAUSIBLE_FROM.get(educ, 0)


def oddity(answers: Mapping[str, int]) -> str | None:
    """Return what is odd about the answers of one page; None if nothing is. Odd answers are kept."""
    if answers.get("ClinLR", 0) > answers.get("DoleLR", 0):
        return "Clinton is placed to the right of Dole"
    party, vote = answers.get("PID"), answers.get("vote")
    if party is not None and ((party <= DEMOCRAT and vote == 1) or (party >= REPUBLICAN and vote == 0)):
        return "votes against the own party"
    return None


def score(answers: Mapping[str, int]) -> dict[str, Any]:
    """Compare the vote with the opinion.

    Args:
        answers: at least the placements on the left-right scale (1 to 7) and the vote.

    Returns:
        `proximity`, by how many points Clinton is nearer to the respondent than Dole, negative if Dole is
        nearer; `nearer`, the nearer candidate, None if there is none; `vote`, the chosen candidate; `agrees`,
        whether these two are the same, None if no candidate is nearer.
    """
    own = answers["selfLR"]
    proximity = abs(own - answers["DoleLR"]) - abs(own - answers["ClinLR"])
    nearer = None if proximity == 0 else CANDIDATES[proximity < 0]
    vote = CANDIDATES[answers["vote"]]
    return {"proximity": proximity, "nearer": nearer, "vote": vote, "agrees": nearer and nearer == vote}
