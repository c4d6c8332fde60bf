"""Sessions of the reference model, and the steps that its tests share."""

from __future__ import annotations

from triggers.testing.conformance.model import SECOND, Model


def session(configuration, **settings):
    model = Model(**settings)
    model.configure(configuration)
    return model


def task(*after, **more):
    return {"after": list(after), "run": "tests.Task", **more}


def statuses(model):
    return {name: instance.status for name, instance in model.instances.items()}


def fire_all(model, *triggers):
    for trigger in triggers:
        model.fire(trigger)


def run(model, name, result=None):
    assert model.finish(name, model.claim(name), result)


def crash(model, name):
    model.advance(60 * SECOND)
    assert model.claim(name)
    assert model.expire(name)


def failed(model, name):
    assert model.fail(name, model.claim(name), "boom")


def retried(model, name, **more):
    return model.retry(name, model.claim(name), **{"cooldown": 5, "max_retries": 2, **more})
