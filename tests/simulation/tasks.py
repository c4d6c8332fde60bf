"""What the simulated processes run, and the rules by which they run it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from triggers.task import Registry, task

if TYPE_CHECKING:
    import random

    from tests.simulation.world import World
    from triggers.task import TaskContext

#: What tasks may wait for: what the application fires, and what a task of its own may fire.
TRIGGERS = ("a", "b", "c", "d")
EXTRA = "e"

BEHAVIOURS = ("works", "works", "works", "speaks", "fails", "fails", "retries", "skips", "once", "slow", "slow")


def make_registry(world: World) -> Registry:
    """The tasks of one world: each tells it that it began, and then does what its name says, mostly."""
    registry = Registry()
    dice = world.dice

    def begin(context: TaskContext) -> dict[str, Any]:
        instance = context.task_instance
        claim = (context.manager.uid, instance.name, context.fencing_token)
        world.starts[claim] += 1
        assert world.starts[claim] == 1, f"{claim} ran twice"
        world.interleave()
        world.ledger.seen["ghost that knows"] += context.lease_lost
        return {"fence": context.fencing_token, "attempt": context.attempt}

    @task(name="works", registry=registry)
    def works(context: TaskContext) -> dict[str, Any]:
        return begin(context)

    @task(name="speaks", registry=registry)
    def speaks(context: TaskContext) -> dict[str, Any]:
        with context.get_logger_context({"sees": sorted(context.trigger_kwargs)}) as logger:
            logger.info("It begins.")
            done = begin(context)
            logger.warning("It warns.")
            world.interleave()
            logger.error("It complains.")
        return done

    @task(name="fails", registry=registry)
    def fails(context: TaskContext) -> dict[str, Any]:
        done = begin(context)
        if dice.random() < 0.6:
            raise ValueError(context.task_instance.name)
        return done

    @task(name="retries", registry=registry, max_retries=2)
    def retries(context: TaskContext) -> dict[str, Any]:
        done = begin(context)
        if dice.random() < 0.6:
            kwargs = {"a": {"id": "other"}} if dice.random() < 0.3 else None
            raise context.retry(cooldown=dice.choice([0, 5, 40]), replacement_kwargs=kwargs)
        return done

    @task(name="skips", registry=registry)
    def skips(context: TaskContext) -> dict[str, Any]:
        done = begin(context)
        if dice.random() < 0.5:
            raise context.skip({"why": "it may"})
        return done

    @task(name="once", registry=registry, on_lost="fail")
    def once(context: TaskContext) -> dict[str, Any]:
        return begin(context)

    @task(name="slow", registry=registry, timeout=timedelta(seconds=20), lease=timedelta(seconds=40))
    def slow(context: TaskContext) -> dict[str, Any]:
        done = begin(context)
        world.time.sleep(dice.choice([0, 10, 25]))
        return done

    @task(name="fires", registry=registry)
    def fires(context: TaskContext) -> dict[str, Any]:
        done = begin(context)
        context.manager.fire(EXTRA, {"of": context.idempotency_key}, key=context.idempotency_key)
        world.interleave()
        context.manager.fire(EXTRA, {"of": context.task_instance.name})
        return done

    return registry


def configuration(dice: random.Random) -> dict[str, Any]:
    """Draw rules: tasks wait for triggers and for tasks before them, so that every one can start.

    The first task may fire a trigger of its own, and waits for no task, so that nothing goes round for ever.
    """
    rules: dict[str, Any] = {}
    for number in range(dice.randrange(2, 6)):
        first = number == 0
        names = [*TRIGGERS, *([] if first else [EXTRA, EXTRA]), *rules]
        rule: dict[str, Any] = {"run": "fires" if first else dice.choice(BEHAVIOURS)}
        rule["after"] = _condition(dice, names)
        if dice.random() < 0.3:
            rule["andEvery"] = dice.choice(names)
        if dice.random() < 0.3:
            rule["unless"] = _condition(dice, names)
        rules[f"t_{number}"] = rule
    if dice.random() < 0.3:
        rules["t_last"] = {"after": ["sessionFinalized"], "run": "works"}
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
