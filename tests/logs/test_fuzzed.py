"""What fuzzing has found, so that it stays found, and a short run of the fuzzer itself."""

from __future__ import annotations

import random
from collections.abc import Mapping
from decimal import Decimal

import pytest

from bench import fuzz_sanitizer
from triggers.core.values import encode
from triggers.exceptions import context_of, with_context
from triggers.logs import LogSettings, mask_secret
from triggers.logs.sanitizing.sanitizer import Sanitizer
from triggers.redaction import SecretKeys, hide

SETTINGS = LogSettings()
clean = Sanitizer(SETTINGS)


def size(data):
    return len(encode(data, "context").encode())


class Breaking(Mapping):
    """A mapping that promises three more keys than it has, and then raises."""

    def __getitem__(self, key):
        return 1

    def __iter__(self):
        yield "key"
        raise OSError

    def __len__(self):
        return 4


@pytest.mark.parametrize(
    "value",
    [
        {"\x01" * 250 + str(number): 1 for number in range(100)},
        {'"' * 250 + str(number): 1 for number in range(100)},
        {"\U0001f600" * 250 + str(number): 1 for number in range(100)},
        {"\\" * 200 + str(number): {"\ud800" * 250: None} for number in range(100)},
        {str(number): Decimal("1" * 600) for number in range(100)},
        [[(f"Authorization-{'-' * 40}", 1)] * 99] * 5,
        [[b"cookie", 1]] * 100,
        [{"name": "cookie", "value": number} for number in range(90)],
        [[Breaking()] * 90] * 4,
        [[""] * 101] * 9,
        {"x" * 300: {"y" * 300: {"z" * 300: ["\x01" * 4_000] * 100}}},
    ],
)
def test_a_context_keeps_to_its_size(value):
    """Escapes, keys that are as long as they may be, numbers of many digits, and marks of cuts all count."""
    for _ in range(2):  # the second time its keys are known
        assert size(clean.context(value).data) <= SETTINGS.max_context


def test_known_keys_keep_to_it_too():
    """A small context with known keys takes a shorter way, by the same measure."""
    value = {"\U0001f600" * 200 + str(number): number for number in range(29)}
    clean.context({key: [] for key in value})
    assert size(clean.context(value).data) <= SETTINGS.max_context


@pytest.mark.parametrize(
    "over",
    [
        [{"deep": [[[[["x" * 3_000]]]]]}] * 3,
        {"k" * 300: "x" * 4_000, "\ud800" * 300: "y" * 4_000},
        {"items": ["z" * 5_000] * 3, "more": list(range(150))},
    ],
)
def test_two_contexts_together_keep_to_the_size_of_one(over):
    """Measured again after a cut: one level deeper, with a key that its mark made longer."""
    under = {f"key {number}": "u" * 700 for number in range(20)}
    both = clean.merge(clean.context(under), clean.context(over))
    assert size(both.data) <= SETTINGS.max_context
    assert both.data.keys() >= clean.context(over).data.keys()


def test_what_is_no_mapping_may_be_as_deep_as_a_mapping():
    """It stands under a key of its own, and the whole is as deep as any context: nothing is cut twice."""
    value = "end"
    for _ in range(SETTINGS.max_depth - 1):
        value = [value]
    fit = clean.context(value)
    assert fit.data == {"context": value}
    assert clean.refit(fit.data).data == fit.data
    assert clean.context([value]).truncated != ()


def test_a_cut_is_not_cut_again():
    """Hiding a value that turned out to be a secret leaves the marks of earlier cuts, and their numbers."""
    fit = clean.context({"text": "x" * 5_000 + "open-sesame", "items": list(range(150)), "k" * 300: 1})
    assert clean.again(fit, ("open-sesame",)).data == fit.data


def test_hiding_a_password_twice_is_hiding_it_once():
    """What stands behind the host, up to a later @, is not taken for the rest of a password the second time."""
    text = "postgres://eve:hunter22" + "x" * 900 + "@host?" + "y" * 200 + "@" + "z" * 900 + "@"
    once = hide(text, ())
    assert "hunter22" not in once
    assert hide(once, ()) == once
    fit = clean.context({"url": text})
    assert clean.measure(fit.data) >= size(fit.data)


def test_a_header_whose_name_is_cut_is_hidden():
    """Names are compared before they are cut; of one that was cut already, nobody knows what it named."""
    tight = Sanitizer(LogSettings(max_string=10))
    assert tight.context([("Authorization", "hunter22")]).data["context"][0][1] == "[redacted]"
    assert tight.context({"name": "Authorization", "value": "hunter22"}).data["value"] == "[redacted]"


def test_an_argument_is_not_cut_within_a_secret(kit):
    """A masked value is hidden in an argument before that is cut."""
    with kit.log.block() as logger:
        mask_secret("q7Xv9ZkW3mPt8RbN")
        for before in range(4_080, 4_096):
            logger.info("%s", {"text": "x" * before + "q7Xv9ZkW3mPt8RbN" + "y" * 100})
            logger.info("%d", {"text": "x" * before + "q7Xv9ZkW3mPt8RbN" + "y" * 100})
    assert not any("q7X" in entry.message for entry in kit.finish())


def test_context_of_an_exception_that_holds_itself_twice():
    """Copying it takes a bounded number of steps, though there are endless ways through it."""
    value = {"a": 1}
    value["one"] = value["two"] = value["three"] = value
    found = context_of(with_context(ValueError("x"), value))
    assert found["one"]["two"]["a"] == 1
    ladder = {"end": 1}
    for _ in range(40):
        ladder = {"left": ladder, "right": ladder}
    assert set(context_of(with_context(ValueError("x"), {"ladder": ladder}))["ladder"]) == {"left", "right"}


def test_a_key_as_long_as_a_book():
    """Its words are looked for at both of its ends."""
    is_secret = SecretKeys()
    assert is_secret("x" * 1_000_000 + "_password")
    assert is_secret("password_" + "x" * 1_000_000)
    assert not is_secret("x_" * 1_000_000)


def test_the_fuzzer_finds_nothing_in_a_short_run():
    """Five hundred inputs of a fixed seed break no promise; a longer run is ``python -m bench.fuzz_sanitizer 30``."""
    dice = random.Random(20261122)
    for _ in range(500):
        fuzz_sanitizer.check(dice.randbytes(dice.randrange(300)))
