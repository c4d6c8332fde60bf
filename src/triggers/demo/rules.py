"""The rules of the survey: which task runs when. Every session has the same rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def survey_rules(results: Path) -> dict[str, dict[str, Any]]:
    """Return the configuration of a session.

    Args:
        results: the file in which the tasks store their results.
    """
    kept = {"results": {"file": str(results)}}
    return {
        "t_importSubject": {
            "after": ["firstPageReceived", "questionnaireComplete"],
            "deadline": "P14D",
            "run": "survey.ImportSubject",
            "withParams": kept,
        },
        "t_importResponses": {
            "after": ["t_importSubject"],
            "andEvery": "pageReceived",
            "run": "survey.ImportResponses",
            "withParams": kept,
        },
        "t_importBrowser": {
            "after": ["t_importSubject", "pageReceived"],
            "unless": ["isEmbedded"],
            "run": "survey.ImportBrowser",
            "withParams": kept,
        },
        "t_checkSubject": {
            "after": ["subjectImported"],
            "run": "survey.CheckSubject",
            "withParams": kept | {"review": {"tolerance": 0}},
        },
        "t_score": {
            "after": ["t_checkSubject", "placeImported", "mediaImported", "opinionImported", "voteImported"],
            "run": "survey.Score",
            "withParams": kept,
        },
        "t_remind": {
            "after": ["firstPageReceived"],
            "delay": "P3D",
            "unless": ["questionnaireComplete"],
            "run": "survey.Remind",
            "withParams": kept,
        },
        "t_close": {
            "after": ["t_importSubject:missed"],
            "run": "survey.Close",
            "withParams": kept,
        },
        "t_flag": {
            "after": ["t_checkSubject:failed"],
            "run": "survey.Flag",
            "withParams": kept,
        },
    }
