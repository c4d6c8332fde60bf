"""Turns any value that is logged into bounded plain data, without raising and without running its code.

The result has only the exact types that a storage can store. Each cut is marked where it was made, and its
path is listed. Secrets are hidden before anything is cut, so that no cut can leave a part of one.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from triggers.logs.sanitizing.plain import SanitizedContext, merged
from triggers.logs.sanitizing.policy import policy
from triggers.logs.sanitizing.shapes import type_name
from triggers.logs.sanitizing.texts import ELLIPSIS, fit_text
from triggers.logs.sanitizing.walk import LARGEST, MAX_CUTS, RESERVE, SHORT, SMALLEST, Keys, Walk
from triggers.redaction import REDACTED, SecretKeys, hide

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers.logs.settings import LogSettings

#: Types that never become a mapping.
_NO_MAPPINGS = frozenset({list, tuple, set, frozenset, str})
#: A part of a context that is larger than one in so many of its bytes is large, and is cut first.
LARGE = 8
#: Bytes, nodes and items of a context.
_Amounts = tuple[int, int, int]
#: Templates of messages that are remembered.
MAX_TEMPLATES = 256


@lru_cache(maxsize=32)
def sanitizer(settings: LogSettings) -> Sanitizer:
    """Return the sanitizer of these settings, which all logs with them share."""
    return Sanitizer(settings)


class Sanitizer:
    """Sanitizes contexts and texts under one set of limits; safe for threads."""

    def __init__(self, settings: LogSettings) -> None:
        self.settings = settings
        self.keys: Keys = Keys(SecretKeys(settings.redact))
        self._policy = policy(settings.context_policy, frozenset(settings.allowed_keys))
        self._templates: dict[str, str] = {}
        self._short = min(SHORT, settings.max_string)

    def context(self, value: Any, secrets: tuple[str, ...] = ()) -> SanitizedContext:
        """Turn any value into a context.

        Args:
            value: usually a mapping; any other value is stored under the key ``context``.
            secrets: values to hide in all texts.

        Returns:
            Bounded plain data that shares no container with `value`. It never raises.
        """
        try:
            plain = self._simple(value) if type(value) is dict and not secrets else None
            if plain is None:
                plain = self._walked(value, secrets)
            return plain if self._policy is None else self._permitted(plain, self._policy)
        except Exception as problem:  # noqa: BLE001 - logging never breaks the task
            return self.lost(problem)

    @staticmethod
    def lost(problem: Exception) -> SanitizedContext:
        """Return the context that replaces one which could not be sanitized."""
        text = f"<could not be recorded: {type_name(type(problem))}>"
        return SanitizedContext({"context": text}, RESERVE, RESERVE, 1, flat=True, truncated=("context",))

    def _permitted(self, plain: SanitizedContext, allow: Callable[[Any], Any]) -> SanitizedContext:
        kept = self.refit(allow(plain.data))
        # The path of a cut contains the names of keys, which may not be allowed.
        return replace(kept, truncated=("context",) if plain.truncated or kept.truncated else ())

    def _simple(  # noqa: C901, PLR0911, PLR0912 - one loop without calls: most records cost only this
        self, value: dict[Any, Any]
    ) -> SanitizedContext | None:
        """Copy a small flat context; return None if anything about it needs a closer look."""
        if len(value) > self.settings.max_items:
            return None
        out: dict[str, Any] = {}
        size = 30 * len(value)
        known, short = self.keys.known, self._short
        for key, item in value.items():
            if type(key) is not str:
                return None
            secret = known.get(key)
            if secret is None:
                return None
            if secret:
                out[key] = REDACTED
                continue
            kind = type(item)
            if kind is str:
                length = len(item)
                if length > short or not item.isprintable():
                    return None
                if ("=" in item or "://" in item) and hide(item, ()) != item:
                    return None
                size += 2 * length if item.isascii() else 4 * length
            elif kind is int:
                if not SMALLEST <= item <= LARGEST:
                    return None
            elif kind is float:
                if not math.isfinite(item):
                    return None
            elif item is not None and kind is not bool:
                return None
            size += 2 * len(key) if key.isascii() else 4 * len(key)
            out[key] = item
        if size > self.settings.max_context - RESERVE or len(out) > self.settings.max_nodes or "value" in out:
            return None
        return SanitizedContext(out, size, size // 2, len(out), flat=True)

    def _walked(self, value: Any, secrets: tuple[str, ...]) -> SanitizedContext:
        walk = self._walk(secrets)
        data = walk.value({"context": value} if type(value) in _NO_MAPPINGS else value, 0)
        if type(data) is not dict:
            # Again, because a value in a context is one level deeper than the context.
            walk = self._walk(secrets)
            data = walk.value({"context": value}, 0)
        return walk.result(data)

    def _walk(self, secrets: tuple[str, ...]) -> Walk:
        limits = self.settings
        budget = limits.max_context - RESERVE
        return Walk(limits, self.keys, secrets, budget, limits.max_nodes, limits.max_string)

    def fits(self, plain: SanitizedContext) -> bool:
        """Whether this context, merged from several, is within the limits."""
        limits = self.settings
        return (
            plain.size <= limits.max_context
            and plain.nodes <= limits.max_nodes
            and len(plain.data) <= limits.max_items
        )

    def merge(self, under: SanitizedContext, over: SanitizedContext) -> SanitizedContext:
        """Return one context merged over another; if both together are too large, the larger one is cut."""
        if not over.data:
            return under if not over.truncated else self._labelled(under, over)
        if not under.data:
            return over if not under.truncated else self._labelled(over, under)
        flat = under.flat and over.flat
        data = {**under.data, **over.data} if flat else merged(under.data, over.data)
        truncated = under.truncated + over.truncated if under.truncated or over.truncated else ()
        size, weight = under.size + over.size, under.weight + over.weight
        both = SanitizedContext(data, size, weight, under.nodes + over.nodes, flat, truncated)
        return both if self.fits(both) else self._squeezed(under, over)

    @staticmethod
    def _labelled(plain: SanitizedContext, other: SanitizedContext) -> SanitizedContext:
        return replace(plain, truncated=plain.truncated + other.truncated)

    def _squeezed(self, under: SanitizedContext, over: SanitizedContext) -> SanitizedContext:
        """Merge two contexts that are too large together, of which the larger one is cut.

        Neither is cut below half of a limit, so a large context leaves space for a smaller one.
        """
        limits = self.settings
        sizes = [self._sizes(side.data) for side in (under, over)]
        needs = [
            (sum(size.values()) + RESERVE, side.nodes, len(side.data))
            for size, side in zip(sizes, (under, over), strict=True)
        ]
        most = (limits.max_context, limits.max_nodes, limits.max_items)
        low = self._cut_to(under, sizes[0], needs[0], _shares(most, needs[1]))
        high = self._cut_to(over, sizes[1], needs[1], _shares(most, needs[0]))
        data = merged(low.data, high.data)
        if needs[1] < needs[0]:  # the smaller one first: if this is cut again, the last items are cut
            data = {key: data[key] for key in (*high.data, *data)}
        if ELLIPSIS in data:  # the counts of two marks are not known to be of different items
            data[ELLIPSIS] = "[truncated items]"
        size, truncated = self.measure(data), tuple(dict.fromkeys(low.truncated + high.truncated))
        flat = low.flat and high.flat
        return SanitizedContext(data, size, size, low.nodes + high.nodes, flat, truncated[:MAX_CUTS])

    def _sizes(self, data: dict[str, Any]) -> dict[str, int]:
        """Return an upper bound of the size of each item as JSON, in bytes."""
        walk, sizes = self._second_walk((), 2**40, 2**40), {}
        for key, item in data.items():
            before = walk.budget
            walk.value(key, 1)
            walk.value(item, 1)
            sizes[key] = before - walk.budget
        return sizes

    def _cut_to(
        self, plain: SanitizedContext, sizes: dict[str, int], needs: _Amounts, share: _Amounts
    ) -> SanitizedContext:
        """Cut a context to its share; large items are cut first, and then the last ones."""
        if all(need <= most for need, most in zip(needs, share, strict=True)):
            return plain
        size, nodes, items = share
        large = size // LARGE
        order = sorted(plain.data, key=lambda key: sizes[key] if sizes[key] > large else 0)
        walk = self._second_walk((), size - RESERVE, nodes)
        walk.top_items = max(items - 1, 0)
        fit = walk.result(walk.value({key: plain.data[key] for key in order}, 0))
        gone = [f"context.{key}" for key in order if key not in fit.data]
        kept = [key for key in (*plain.data, ELLIPSIS) if key in fit.data]
        cuts = (*gone, *[cut for cut in fit.truncated if cut != f"context.{ELLIPSIS}"], *plain.truncated)
        return replace(fit, data={key: fit.data[key] for key in kept}, truncated=cuts)

    def measure(self, data: Any) -> int:
        """Return an upper bound of the size of plain data as JSON, in bytes."""
        walk = self._second_walk((), 2**40, 2**40)
        walk.value(data, 0)
        return 2**40 - walk.budget

    def again(self, plain: SanitizedContext, secrets: tuple[str, ...]) -> SanitizedContext:
        """Return the context without values that were declared secret after it was made."""
        again = self.refit(plain.data, secrets)
        return replace(again, truncated=plain.truncated + again.truncated)

    def refit(self, data: dict[str, Any], secrets: tuple[str, ...] = ()) -> SanitizedContext:
        """Sanitize plain data again; values that were cut before are not cut a second time."""
        limits = self.settings
        walk = self._second_walk(secrets, limits.max_context - RESERVE, limits.max_nodes)
        return walk.result(walk.value(data, 0))

    def _second_walk(self, secrets: tuple[str, ...], budget: int, nodes: int) -> Walk:
        """Return a walk over plain data, of which only the total size can exceed a limit."""
        walk = Walk(self.settings, self.keys, secrets, budget, nodes, 2**40)
        walk.top_items = walk.max_items = walk.max_key = 2**40
        return walk

    def argument(self, value: Any, secrets: tuple[str, ...]) -> Any:
        """Return an argument of a message without secrets, and bounded if it is large."""
        walk = self._walk(secrets)
        plain = walk.value(value, 0)
        return plain if walk.hidden or (walk.cuts and type(plain) in (dict, list)) else value

    def shown(self, value: Any, secrets: tuple[str, ...]) -> Any:
        """Return plain data for the text of a message, to which no context policy applies."""
        return self._walked({"shown": value}, secrets).data.get("shown")

    def template(self, template: str) -> str:
        """Return a template, cut if it is too long; recent ones are remembered."""
        known = self._templates.get(template)
        if known is None:
            known = fit_text(template, self.settings.max_string)[0]
            if len(self._templates) >= MAX_TEMPLATES:
                self._templates.clear()
            self._templates[template] = known
        return known


def _shares(most: _Amounts, other: _Amounts) -> _Amounts:
    """Return what a context may take of each limit beside another one: what that leaves, at least half."""
    size, nodes, items = (max(limit - need, limit // 2) for limit, need in zip(most, other, strict=True))
    return size, nodes, items
