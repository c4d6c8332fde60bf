"""The rule sets that a storage has read, kept in memory.

A stored rule set never changes, and many sessions share one, so each process reads and parses it once.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from triggers.core.rules import RuleSet, read_rules
from triggers.health import Problems, readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

#: The greatest number of rule sets in a cache; one more empties it.
MAX_RULE_SETS: Final = 1_000

R = TypeVar("R")


def place_of_rules(ref: object) -> str:
    """Name the rule set with this reference in a :class:`~triggers.health.Problem`."""
    return f"rule set {ref.decode(errors='replace') if isinstance(ref, bytes) else ref}"


class RuleCache(Generic[R]):
    """Rule sets by the reference under which the storage keeps them. Any thread may use it.

    Args:
        problems: the problems of the storage. One with a rule set is over once it has been read.
    """

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._rules: dict[R, RuleSet] = {}
        self._digests: set[str] = set()

    def one(self, ref: R, read: Callable[[R], str]) -> RuleSet:
        """The rule set of a reference.

        Args:
            ref: the reference.
            read: loads the stored text of a rule set; not called if the rule set is in the cache.
        """
        rules = self._rules.get(ref)
        if rules is None:
            rules = read_rules(read(ref))
            self.keep({ref: rules})
        return rules

    def many(self, refs: Iterable[R], read: Callable[[list[R]], Mapping[R, str]]) -> list[RuleSet]:
        """The rule sets of these references, in the same order.

        Args:
            refs: the references; each may occur several times.
            read: loads the stored texts of those that are not in the cache; not called if all are.
        """
        refs = list(refs)
        found, missing = self._find(refs)
        if missing:
            loaded = {ref: read_rules(text) for ref, text in read(missing).items()}
            self.keep(loaded)
            found |= loaded
        return [found[ref] for ref in refs]

    def readable(self, refs: Iterable[R], read: Callable[[list[R]], Mapping[R, str]]) -> dict[R, RuleSet]:
        """The rule sets of these references. Those that cannot be read are left out and reported.

        Args:
            refs: the references; each may occur several times.
            read: loads the stored texts of those that are not in the cache; not called if all are.
        """
        found, missing = self._find(refs)
        texts = read(missing) if missing else {}
        loaded: dict[R, RuleSet] = {}
        for ref in missing:
            with readable(self._problems, place_of_rules(ref)):
                loaded[ref] = read_rules(texts[ref])
        self.keep(loaded)
        return found | loaded

    def _find(self, refs: Iterable[R]) -> tuple[dict[R, RuleSet], list[R]]:
        kept, refs = self._rules, dict.fromkeys(refs)
        return {ref: kept[ref] for ref in refs if ref in kept}, [ref for ref in refs if ref not in kept]

    def has_digest(self, digest: str) -> bool:
        """Whether a rule set with this digest is in the cache, and so is certainly stored."""
        return digest in self._digests

    def keep(self, loaded: Mapping[R, RuleSet]) -> None:
        """Add rule sets whose transaction has been committed."""
        if len(self._rules) + len(loaded) > MAX_RULE_SETS:
            self._rules, self._digests = {}, set()
        self._rules |= loaded
        self._digests |= {rules.digest for rules in loaded.values()}
        for ref in loaded:
            self._problems.resolve(place_of_rules(ref))

    @contextmanager
    def transaction(self) -> Iterator[RuleCache[R]]:
        """A cache for a transaction in the block. What it adds is kept if the block raises no exception."""
        view: RuleCache[R] = RuleCache(self._problems)
        view._rules, view._digests = dict(self._rules), set(self._digests)
        yield view
        self.keep({ref: rules for ref, rules in view._rules.items() if ref not in self._rules})

    def read_only(self) -> RuleCache[R]:
        """A view for a transaction that can still be rolled back: it finds what is here and adds nothing."""
        return _ReadOnlyCache(self)


class _ReadOnlyCache(RuleCache[R]):
    """After a rollback, other rules can get the references that this transaction has seen."""

    def __init__(self, cache: RuleCache[R]) -> None:
        self._problems = cache._problems  # noqa: SLF001 - of its own kind
        self._rules, self._digests = cache._rules, cache._digests  # noqa: SLF001 - of its own kind

    def keep(self, loaded: Mapping[R, RuleSet]) -> None:
        """Add nothing."""
