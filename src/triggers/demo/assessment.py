"""What the survey makes of answers: what is odd, what is implausible, how a vote compares with an opinion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Level of education, as labelled in the file's code book → the youngest plausible age, in years.
PLAUSIBLE_FROM = {5: 22, 6: 25, 7: 28}

#: Who `vote` stands for.
CANDIDATES = ("Clinton", "Dole")

#: Party identification up to here is Democratic, from there on Republican; what lies between leans at most.
DEMOCRAT, REPUBLICAN = 1, 5


def is_plausible(age: int, educ: int, tolerance: int) -> bool:
    """Whether somebody of that age, give or take the tolerance in years, can have that education."""
    return age + tolerance >= PLAUSIBLE_FROM.get(educ, 0)


def oddity(answers: Mapping[str, int]) -> str | None:
    """What is odd about the answers of one page, if anything is. Odd answers are kept: people are odd."""
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
        `proximity`, by how many points Clinton is nearer to the respondent than Dole, negative where Dole is;
        `nearer`, which candidate that is, None for neither; `vote`, for whom; `agrees`, whether both are the
        same, None where neither is nearer.
    """
    own = answers["selfLR"]
    proximity = abs(own - answers["DoleLR"]) - abs(own - answers["ClinLR"])
    nearer = None if proximity == 0 else CANDIDATES[proximity < 0]
    vote = CANDIDATES[answers["vote"]]
    return {"proximity": proximity, "nearer": nearer, "vote": vote, "agrees": nearer and nearer == vote}
