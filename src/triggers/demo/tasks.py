"""The tasks of the survey. Each may run more than once, with the same result as if it had run once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triggers.demo.assessment import PLAUSIBLE_FROM, is_plausible, oddity, score
from triggers.demo.results import results_in
from triggers.exceptions import with_context
from triggers.task import Registry, TaskContext, TriggerTask, task

if TYPE_CHECKING:
    from collections.abc import Mapping

survey: Registry = Registry()


class ImportSubject(TriggerTask):
    """Imports the respondent, after the first page and the completion of the questionnaire."""

    name = "survey.ImportSubject"
    registry = survey

    def _run(self, context: TaskContext) -> dict[str, Any]:
        first = context.trigger_kwargs["firstPageReceived"]
        with context.get_logger_context({"page": first["page"]}) as logger:
            keep(context, {"firstPage": first["page"]})
            logger.info("Subject imported.")
        return {"subjectId": context.manager.uid}


class ImportResponses(TriggerTask):
    """Imports one page, and fires a trigger named after that page."""

    name = "survey.ImportResponses"
    registry = survey

    def _run(self, context: TaskContext) -> None:
        received = context.trigger_kwargs["pageReceived"]
        page, answers = received["page"], received["answers"]
        with context.get_logger_context({"page": page}) as logger:
            if odd := oddity(answers):
                logger.warning("Odd answers: %s.", odd, extra={"context": {"answers": answers}})
            keep(context, {"page": page, "answers": answers})
            context.manager.fire(f"{page}Imported", answers, key=context.idempotency_key)


@task(name="survey.ImportBrowser", registry=survey)
def import_browser(context: TaskContext) -> None:
    """Stores which browser sent the first page."""
    keep(context, {"browser": context.trigger_kwargs["pageReceived"]["browser"]})


class CheckSubject(TriggerTask):
    """Fails if the respondent is too young for the education; a replay may add a tolerance."""

    name = "survey.CheckSubject"
    registry = survey

    def _run(self, context: TaskContext) -> dict[str, Any]:
        subject, review = context.trigger_kwargs["subjectImported"], context.trigger_kwargs["review"]
        age, educ = subject["age"], subject["educ"]
        with context.get_logger_context({"review": review}):
            if not is_plausible(age, educ, review["tolerance"]):
                raise with_context(
                    exc=ValueError(f"Too young, at {age}, for education level {educ}."),
                    context={"age": age, "educ": educ, "plausibleFrom": PLAUSIBLE_FROM[educ]},
                )
        keep(context, {"tolerance": review["tolerance"]})
        return {"plausible": True}


class Score(TriggerTask):
    """Compares opinion and vote, after all five pages were imported and the subject was checked."""

    name = "survey.Score"
    registry = survey

    def _run(self, context: TaskContext) -> dict[str, Any]:
        given = context.trigger_kwargs
        found = score(given["opinionImported"] | given["voteImported"])
        with context.get_logger_context(found) as logger:
            if found["agrees"] is False:
                logger.warning("Votes for the farther candidate.", context=given["opinionImported"])
            else:
                logger.info("Scored.")
        found |= {"news": given["mediaImported"]["TVnews"], "plausible": given["t_checkSubject"]["plausible"]}
        keep(context, found)
        return found


@task(name="survey.Remind", registry=survey)
def remind(context: TaskContext) -> None:
    """Stores that a respondent was reminded. A real survey would send a message."""
    keep(context, {"firstPage": context.trigger_kwargs["firstPageReceived"]["page"]})


@task(name="survey.Close", registry=survey)
def close(context: TaskContext) -> None:
    """Stores that a questionnaire was not completed in time."""
    keep(context, {"lacks": context.trigger_kwargs["t_importSubject:missed"]["lacks"]})


@task(name="survey.Flag", registry=survey)
def flag(context: TaskContext) -> None:
    """Stores why the subject has to be reviewed, as soon as its check has failed."""
    failure = context.trigger_kwargs["t_checkSubject:failed"]
    keep(context, {"instance": failure["instance"], "error": failure["error"]["message"]})


def keep(context: TaskContext, values: Mapping[str, Any]) -> None:
    """Store the result of an instance in its row of the table of results."""
    results = results_in(context.trigger_kwargs["results"]["file"])
    results.put(context.idempotency_key, context.manager.uid, context.task_instance.task, values)
