"""What the simulated processes run, and the rules by which they run it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tests.invariants import FINALIZING
from triggers.task import Registry, task

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.simulation.world import World
    from triggers.task import TaskContext

    Done = dict[str, Any]

#: What tasks may wait for: what the application fires, and what a task of its own may fire.
TRIGGERS = ("a", "b", "c", "d")
EXTRA = "e"

DELAYS = (
    "PT2S",
    "PT30S",
    {"for": "PT10S", "since": "last"},
    {"for": "PT3S", "since": "last", "atMost": "PT5S"},
)
DEADLINES = ("PT5S", "PT1M", {"in": "PT15S", "late": "abandon"})

BEHAVIOURS = (
    "works",
    "works",
    "works",
    "speaks",
    "fails",
    "fails",
    "retries",
    "skips",
    "once",
    "slow",
    "slow",
)


def _works(world: World, context: TaskContext, done: Done) -> Done:
    return done


def _speaks(world: World, context: TaskContext, done: Done) -> Done:
    with context.get_logger_context({"sees": sorted(context.trigger_kwargs)}) as logger:
        logger.info("It begins.")
        world.interleave(0.5)
        logger.warning("It warns.")
        world.interleave()
        logger.error("It complains.")
    return done


def _fails(world: World, context: TaskContext, done: Done) -> Done:
    if world.dice.random() < 0.6:
        raise ValueError(context.task_instance.name)
    return done


def _retries(world: World, context: TaskContext, done: Done) -> Done:
    if world.dice.random() < 0.6:
        kwargs = {"a": {"id": "other"}} if world.dice.random() < 0.3 else None
        raise context.retry(cooldown=world.dice.choice([0, 5, 40]), replacement_kwargs=kwargs)
    return done


def _skips(world: World, context: TaskContext, done: Done) -> Done:
    if world.dice.random() < 0.5:
        raise context.skip({"why": "it may"})
    return done


def _is_slow(world: World, context: TaskContext, done: Done) -> Done:
    world.time.sleep(world.dice.choice([0, 10, 25]))
    world.interleave(0.8)
    return done


def _fires(world: World, context: TaskContext, done: Done) -> Done:
    context.manager.fire(EXTRA, {"of": context.idempotency_key}, key=context.idempotency_key)
    world.interleave()
    context.manager.fire(EXTRA, {"of": context.task_instance.name})
    return done


#: Name of a task → what it does, and its options.
TASKS: dict[str, tuple[Callable[[World, TaskContext, Done], Done], dict[str, Any]]] = {
    "works": (_works, {}),
    "speaks": (_speaks, {}),
    "fails": (_fails, {}),
    "retries": (_retries, {"max_retries": 2}),
    "skips": (_skips, {}),
    "once": (_works, {"on_lost": "fail"}),
    "slow": (_is_slow, {"timeout": timedelta(seconds=8), "lease": timedelta(seconds=40)}),
    "fires": (_fires, {}),
}


def make_registry(world: World) -> Registry:
    """The tasks of one world."""
    registry = Registry()
    for name, (act, options) in TASKS.items():
        task(name=name, registry=registry, **options)(_begun(world, act))
    return registry


def _begun(world: World, act: Callable[[World, TaskContext, Done], Done]) -> Callable[[TaskContext], Done]:
    """A task that tells its world that it began, and then does what it does."""

    def run(context: TaskContext) -> Done:
        claim = (context.manager.uid, context.task_instance.name, context.fencing_token)
        world.starts[claim] += 1
        assert world.starts[claim] == 1, f"{claim} ran twice"
        world.interleave()
        world.ledger.seen["ghost that knows"] += context.lease_lost
        return act(world, context, {"fence": context.fencing_token, "attempt": context.attempt})

    return run


def configuration(dice: random.Random) -> dict[str, Any]:
    """Draw rules: tasks wait for triggers and for tasks before them, so that every one can start.

    The first task may fire a trigger of its own, and waits for no task, so that nothing goes round for ever.
    """
    rules: dict[str, Any] = {}
    for number in range(dice.randrange(2, 6)):
        first = number == 0
        missed = [f"{task}:missed" for task, other in rules.items() if "deadline" in other]
        names = [*TRIGGERS, *([] if first else [EXTRA, EXTRA]), *rules, *missed]
        rule: dict[str, Any] = {"run": "fires" if first else dice.choice(BEHAVIOURS)}
        rule["after"] = _condition(dice, names)
        if dice.random() < 0.3:
            rule["andEvery"] = dice.choice(names)
        if dice.random() < 0.3:
            rule["unless"] = _condition(dice, names)
        if dice.random() < 0.3:
            rule["delay"] = dice.choice(DELAYS)
        if dice.random() < 0.3:
            rule["deadline"] = dice.choice(DEADLINES)
        rules[f"t_{number}"] = rule
    if dice.random() < 0.3:
        rules["t_last"] = {"after": [FINALIZING], "run": "works"}
    return rules


def _condition(dice: random.Random, names: list[str]) -> Any:
    chosen = sorted(set(dice.sample(names, dice.randrange(1, min(4, len(names))))))
    match dice.randrange(4):
        case 0:
            return {"any": chosen}
        case 1:
            return {"atLeast": dice.randrange(1, len(chosen) + 1), "of": chosen}
        case _:
            return chosen
