"""One respondent's questionnaire, message by message, and what each message sets off.

The session is kept in memory and its tasks run in the calling thread. The rules, tasks and answers are
those of `triggers demo`.

    python examples/questionnaire/one_respondent.py [RESPONDENT]
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import closing
from pathlib import Path

from triggers import FinalizingTriggerManager, Triggers
from triggers.demo.main import SEED
from triggers.demo.results import results_in
from triggers.demo.rules import survey_rules
from triggers.demo.study import arrivals_of, read_answers, uid_of
from triggers.demo.tasks import survey


def play(number: int, results_file: Path) -> None:
    """Let all that a respondent sends arrive.

    Args:
        number: of the respondent, from 1.
        results_file: where the tasks leave what they find.
    """
    with (
        closing(results_in(str(results_file))) as results,
        Triggers("memory://", runner="inline", manager=FinalizingTriggerManager, registry=survey) as triggers,
    ):
        results.prepare(SEED)
        respondent = triggers.session(uid_of(number))
        respondent.update_configuration(survey_rules(results_file))

        for arrival in arrivals_of(number, read_answers()[number - 1], SEED):
            done = respondent.fire(arrival.trigger, arrival.kwargs, key=arrival.key)
            page = arrival.kwargs.get("page", "")
            print(f"{arrival.trigger} {page}".strip(), "(a repeat)" if done.duplicate else "")
            for name in done.scheduled:
                print("   runs", name)
            for name in done.abandoned:
                print("   drops", name)

        print()
        for instance in respondent.storage:
            print(f"{instance.name:22} {instance.status:10} {instance.log_level_name}")
        for task in respondent.storage.tasks:
            print(respondent.storage.explain(task).sentence)
        for _, _, task, found in results.rows("t_score"):
            print(task, "found", found)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        play(int(sys.argv[1]) if len(sys.argv) > 1 else 2, Path(folder) / "results.db")
