"""Conditions over names: *at least n of these*, nested freely.

One small type says all three forms of the rule language: ``all`` is at least as many as there are,
``any`` is at least one, ``atLeast`` is what it says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator


@dataclass(frozen=True, slots=True)
class Condition:
    """At least `at_least` of the terms `of` hold; a name holds once it has happened.

    Attributes:
        at_least: how many terms must hold, 0 for a condition that always does.
        of: the terms, names or conditions.
        names: every name in it, at any depth.
    """

    at_least: int
    of: tuple[str | Condition, ...]
    names: frozenset[str] = field(init=False, compare=False)
    _plain: bool = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", frozenset(_names(self.of)))
        plain = self.at_least == len(self.of) == len(self.names)
        object.__setattr__(self, "_plain", plain and all(isinstance(term, str) for term in self.of))

    def is_met(self, happened: Collection[str]) -> bool:
        """Whether it holds when exactly the names in `happened` have happened."""
        if self._plain:
            return all(name in happened for name in self.names)
        return sum(_holds(term, happened) for term in self.of) >= self.at_least

    def lacking(self, happened: Collection[str]) -> tuple[str, ...]:
        """The names that could still help to meet it, in the order they are written; none once it is met."""
        if self.is_met(happened):
            return ()
        found: dict[str, None] = {}
        for term in self.of:
            missing = (term,) if isinstance(term, str) else term.lacking(happened)
            found.update(dict.fromkeys(name for name in missing if name not in happened))
        return tuple(found)

    def to_json(self) -> Any:
        """The form that the rule language has for it: a list where every name is needed."""
        return self._terms_to_json() if self._plain or not self.of else self._form_to_json()

    def _form_to_json(self) -> dict[str, Any]:
        terms = self._terms_to_json()
        if self.at_least == len(self.of):
            return {"all": terms}
        return {"any": terms} if self.at_least == 1 else {"atLeast": self.at_least, "of": terms}

    def _terms_to_json(self) -> list[Any]:
        return [term if isinstance(term, str) else term._form_to_json() for term in self.of]  # noqa: SLF001 - its own

    def sentence(self) -> str:
        """It in words: ``a and b``, ``(a or b) and c``, ``at least 2 of a, b, c``."""
        terms = [term if isinstance(term, str) else f"({term.sentence()})" for term in self.of]
        if self.at_least == len(self.of):
            return " and ".join(terms) or "nothing"
        return " or ".join(terms) if self.at_least == 1 else f"at least {self.at_least} of {', '.join(terms)}"


def all_of(terms: Iterable[str | Condition]) -> Condition:
    """The condition that needs every term."""
    distinct = tuple(dict.fromkeys(terms))
    return Condition(len(distinct), distinct)


def condition_from_json(written: Any) -> Condition:
    """Read a condition in the form of :meth:`Condition.to_json`, which validation has accepted."""
    if isinstance(written, dict):
        if "all" in written:
            return all_of(_terms(written["all"]))
        terms: Any = written.get("any", written.get("of"))
        return Condition(written.get("atLeast", 1), tuple(dict.fromkeys(_terms(terms))))
    return all_of(_terms(written))


def listed(terms: Any) -> Any:
    """Terms that a user wrote as a tuple or a set, as a list; what is neither, as it is."""
    # By its real type: isinstance() believes an object that lies about its class.
    kind = type(terms)
    if issubclass(kind, (set, frozenset)):
        return sorted(terms, key=str)
    return list(terms) if issubclass(kind, tuple) else terms


def _terms(written: Iterable[Any]) -> Iterator[str | Condition]:
    return (term if isinstance(term, str) else condition_from_json(term) for term in written)


def _names(terms: Iterable[str | Condition]) -> Iterator[str]:
    for term in terms:
        if isinstance(term, str):
            yield term
        else:
            yield from term.names


def _holds(term: str | Condition, happened: Collection[str]) -> bool:
    return term in happened if isinstance(term, str) else term.is_met(happened)
