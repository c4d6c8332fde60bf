"""The methods of a trigger manager, called as version 2 documents them."""

from __future__ import annotations

import pytest

from triggers import ConfigurationError, InvalidStatusError, TriggerManager
from triggers.exceptions import UnknownInstanceError

IMPORT = {"after": ["firstPageReceived", "questionnaireComplete"], "run": "triggers.testing.PassThrough"}
FAIL = {"after": ["firstPageReceived"], "run": "triggers.testing.Failing"}
FOLLOW = {"after": ["t_importSubject"], "run": "triggers.testing.PassThrough"}


def statuses(manager):
    return {instance.name: instance.status for instance in manager.storage}


@pytest.fixture
def failed(trigger_manager):
    """A session in which t_importSubject#0 has failed, and t_importResponses waits for it."""
    trigger_manager.update_configuration({"t_importSubject": FAIL, "t_importResponses": FOLLOW})
    trigger_manager.fire("firstPageReceived", {"responses": {"name": "Marcus"}})
    assert statuses(trigger_manager) == {"t_importSubject#0": "failed"}
    return trigger_manager


# -- names of parameters ---------------------------------------------------------------------------------


def test_fire_takes_a_trigger_name_and_trigger_kwargs(trigger_manager):
    """Both have the documented names, and the kwargs arrive in the task."""
    trigger_manager.update_configuration({"t_importSubject": IMPORT})
    trigger_manager.fire(trigger_name="firstPageReceived", trigger_kwargs={"responses": {"name": "Marcus"}})
    trigger_manager.fire("questionnaireComplete")
    instance = trigger_manager.storage["t_importSubject#0"]
    assert instance.result == {
        "firstPageReceived": {"responses": {"name": "Marcus"}},
        "questionnaireComplete": {},
    }


def test_replay_takes_the_failed_instance_and_replacement_kwargs(failed):
    """The replacement is used instead of the kwargs of the failed instance."""
    replacement_kwargs = failed.storage.instances["t_importSubject#0"].kwargs
    replacement_kwargs["firstPageReceived"] = {"responses": {"name": "Ada"}}
    failed.update_configuration({"t_importSubject": {**FAIL, "run": "triggers.testing.PassThrough"}})
    failed.replay_failed_instance(failed_instance="t_importSubject#0", replacement_kwargs=replacement_kwargs)
    assert statuses(failed)["t_importSubject#0"] == "replayed"
    assert failed.storage["t_importSubject#1"].result == {"firstPageReceived": {"responses": {"name": "Ada"}}}


def test_skip_takes_the_failed_instance_a_cascade_and_a_result(failed):
    """The cascade has the simulated result."""
    failed.skip_failed_instance(failed_instance="t_importSubject#0", cascade=True, result={"subjectId": 42})
    assert statuses(failed)["t_importSubject#0"] == "skipped"
    assert failed.storage["t_importResponses#0"].kwargs == {"t_importSubject": {"subjectId": 42}}


def test_metadata_and_reviews_take_a_task_instance(failed):
    """Both take the instance or its name."""
    instance = failed.storage["t_importSubject#0"]
    failed.update_instance_metadata(task_instance=instance, metadata={"ticket": "T-1"})
    failed.mark_instance_logs_resolved(task_instance="t_importSubject#0")
    assert failed.storage["t_importSubject#0"].metadata["ticket"] == "T-1"
    assert failed.storage["t_importSubject#0"].log_reviews


# -- a status by hand ------------------------------------------------------------------------------------


def test_update_instance_status_takes_metadata_and_a_cascade(failed):
    """All five parameters, in the documented order: the cascade is part of the same change."""
    instance = failed.update_instance_status(
        task_instance="t_importSubject#0",
        status="skipped",
        metadata={"skippedBy": "Ada"},
        cascade=True,
        cascade_kwargs={"subjectId": 42},
    )
    assert (instance.name, instance.status) == ("t_importSubject#0", "skipped")
    assert instance.metadata["skippedBy"] == "Ada"
    assert failed.storage["t_importResponses#0"].kwargs == {"t_importSubject": {"subjectId": 42}}


def test_update_instance_status_does_not_cascade_by_itself(failed):
    """Nothing is fired unless `cascade` is true."""
    failed.update_instance_status("t_importSubject#0", "skipped", {"skippedBy": "Ada"})
    assert statuses(failed) == {"t_importSubject#0": "skipped"}


def test_update_instance_status_can_replay(failed):
    """A failed instance becomes replayed together with its replay; the metadata belongs to the failed one."""
    instance = failed.update_instance_status("t_importSubject#0", "replayed", {"because": "fixed"})
    assert instance.metadata["because"] == "fixed"
    assert statuses(failed) == {"t_importSubject#0": "replayed", "t_importSubject#1": "failed"}
    assert "because" not in failed.storage["t_importSubject#1"].metadata


def test_update_instance_status_obeys_the_table_of_moves(failed):
    """What the table lacks is refused, and nothing changes: no metadata, no cascade."""
    with pytest.raises(InvalidStatusError, match="t_importSubject#0 is failed: it cannot become finished"):
        failed.update_instance_status(
            "t_importSubject#0", "finished", {"by": "hand"}, True, {"subjectId": 42}
        )
    assert statuses(failed) == {"t_importSubject#0": "failed"}
    assert "by" not in failed.storage["t_importSubject#0"].metadata


def test_a_cascade_that_means_nothing_is_refused(failed):
    """Only what is finished or skipped cascades, and kwargs need a cascade."""
    with pytest.raises(ValueError, match="becomes replayed cannot cascade"):
        failed.update_instance_status("t_importSubject#0", "replayed", cascade=True)
    with pytest.raises(ValueError, match="no effect without cascade=True"):
        failed.update_instance_status("t_importSubject#0", "skipped", cascade_kwargs={"subjectId": 42})
    assert statuses(failed) == {"t_importSubject#0": "failed"}


# -- the configuration -----------------------------------------------------------------------------------


def test_update_configuration_merges(trigger_manager):
    """Tasks of the same name are replaced, new ones are added, and the others stay."""
    trigger_manager.update_configuration({"t_importSubject": IMPORT, "t_importResponses": FOLLOW})
    trigger_manager.update_configuration(
        {"t_importSubject": FAIL, "t_score": {"after": ["t_importResponses"], "run": "x"}}
    )
    tasks = trigger_manager.storage.tasks
    assert {name: rule.run for name, rule in tasks.items()} == {
        "t_importSubject": "triggers.testing.Failing",
        "t_importResponses": "triggers.testing.PassThrough",
        "t_score": "x",
    }


def test_replace_configuration_replaces_the_whole(trigger_manager):
    """Tasks that are not in the new configuration are removed."""
    trigger_manager.update_configuration({"t_importSubject": IMPORT, "t_importResponses": FOLLOW})
    trigger_manager.replace_configuration({"t_importSubject": FAIL})
    assert list(trigger_manager.storage.tasks) == ["t_importSubject"]


def test_unstarted_instances_of_replaced_tasks_are_decided_at_once(trigger_manager):
    """An instance whose new condition is met runs; one of an untouched task waits on."""
    waiting = {"after": ["firstPageReceived", "never"], "run": "triggers.testing.PassThrough"}
    trigger_manager.update_configuration({"t_importSubject": IMPORT, "t_wait": waiting})
    trigger_manager.fire("firstPageReceived")
    assert statuses(trigger_manager) == {"t_importSubject#0": "unstarted", "t_wait#0": "unstarted"}
    trigger_manager.update_configuration({"t_importSubject": {**IMPORT, "after": ["firstPageReceived"]}})
    assert statuses(trigger_manager) == {"t_importSubject#0": "finished", "t_wait#0": "unstarted"}


@pytest.mark.parametrize(
    "change", [TriggerManager.update_configuration, TriggerManager.replace_configuration]
)
def test_earlier_firings_are_applied_only_on_request(trigger_manager, change):
    """As in version 2, a new task does not see them; with `catch_up` it does."""
    trigger_manager.fire("firstPageReceived", {"page": 1})
    change(trigger_manager, {"t_late": {**FAIL, "run": "triggers.testing.PassThrough"}})
    assert statuses(trigger_manager) == {}
    change(trigger_manager, {"t_new": {**FAIL, "run": "triggers.testing.PassThrough"}}, catch_up=True)
    assert statuses(trigger_manager) == {"t_new#0": "finished"}


def test_an_update_is_checked_together_with_the_other_tasks(trigger_manager):
    """Tasks of two updates that wait for each other are refused, and nothing changes."""
    trigger_manager.update_configuration({"t_a": {"after": ["t_b"], "run": "x"}})
    with pytest.raises(ConfigurationError, match=r"t_b\.after: can never start: it waits for t_a"):
        trigger_manager.update_configuration({"t_b": {"after": ["t_a"], "run": "x"}})
    assert list(trigger_manager.storage.tasks) == ["t_a"]


@pytest.mark.parametrize(
    ("directives", "path"),
    [
        ({"after": "firstPageReceived", "run": "x"}, "t_x.after"),
        ({"after": ["a"], "unless": "b", "run": "x"}, "t_x.unless"),
        ({"after": ["a"], "run": "x", "withParams": {"timeout": 5}}, "t_x.withParams.timeout"),
        ({"after": ["t_x"], "run": "x"}, "t_x.after"),
    ],
)
def test_mistakes_that_version_2_accepted_are_refused(trigger_manager, directives, path):
    """A bare string, flat parameters, and a task that waits for itself are errors with their path."""
    with pytest.raises(ConfigurationError) as refused:
        trigger_manager.update_configuration({"t_x": directives})
    assert [where for where, _ in refused.value.problems] == [path]


# -- hooks -----------------------------------------------------------------------------------------------


class CustomManager(TriggerManager):
    """A manager with the documented hooks."""

    name = "custom"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.heard = []

    def _post_fire(self, trigger_name, tasks_scheduled):
        self.heard.append((trigger_name, [instance.name for instance in tasks_scheduled]))

    def _post_replay(self, task_instance):
        parent_name = task_instance.metadata["parent"]
        self.heard.append((task_instance.name, self.storage[parent_name].status))

    def _post_skip(self, task_instance, cascade):
        self.heard.append((task_instance.name, cascade))


def test_the_hook_of_a_replay_gets_the_new_instance(opened):
    """As documented: its metadata names the failed instance."""
    manager = opened(manager=CustomManager).session("s")
    manager.update_configuration({"t_importSubject": FAIL})
    manager.fire("firstPageReceived")
    manager.heard.clear()
    manager.replay_failed_instance("t_importSubject#0")
    assert manager.heard == [("t_importSubject#1", "replayed")]


def test_the_hook_of_a_skip_comes_after_that_of_its_cascade(opened):
    """As documented: `_post_fire` first."""
    manager = opened(manager=CustomManager).session("s")
    manager.update_configuration(
        {"t_importSubject": FAIL, "t_importResponses": {**FOLLOW, "after": ["t_importSubject", "x"]}}
    )
    manager.fire("firstPageReceived")
    manager.heard.clear()
    manager.skip_failed_instance("t_importSubject#0", cascade=True, result={})
    assert manager.heard == [("t_importSubject", []), ("t_importSubject#0", True)]


def test_what_does_not_exist_is_a_key_error(trigger_manager):
    """An unknown instance, and the name of a task in place of one of an instance."""
    trigger_manager.update_configuration({"t_importSubject": IMPORT})
    for name in ("t_importSubject#0", "t_importSubject"):
        with pytest.raises(KeyError) as missing:
            trigger_manager.storage[name]
        assert type(missing.value) is UnknownInstanceError
        assert name in str(missing.value)
        assert str(missing.value) == missing.value.args[0]
        with pytest.raises(KeyError):
            trigger_manager.storage.instances[name]
        with pytest.raises(KeyError):
            trigger_manager.replay_failed_instance(name)
