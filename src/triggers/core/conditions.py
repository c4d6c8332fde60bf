"""Conditions over names: *at least n of these*, nested to any depth.

One type represents the three forms of the rule language: for ``all``, n is the number of terms; for ``any``,
it is 1; for ``atLeast``, it is the given number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that is met if at least `at_least` of the terms `of` are met.

    A name is met once it has fired. As a collection, a condition contains every name in it, each once, in
    alphabetical order.

    Attributes:
        at_least: how many terms must be met; a condition with 0 is always met.
        of: the terms, which are names or conditions.
        names: every name in the condition, at any depth.
    """

    at_least: int
    of: tuple[str | Condition, ...]
    names: frozenset[str] = field(init=False, compare=False)
    _plain: bool = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", frozenset(_names(self.of)))
        plain = self.at_least == len(self.of) == len(self.names)
        object.__setattr__(self, "_plain", plain and all(isinstance(term, str) for term in self.of))

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.names))

    def __len__(self) -> int:
        return len(self.names)

    def is_met(self, happened: Collection[str]) -> bool:
        """Return whether the condition is met if exactly the names in `happened` have fired."""
        if self._plain:
            return all(name in happened for name in self.names)
        return sum(_holds(term, happened) for term in self.of) >= self.at_least

    def lacking(self, happened: Collection[str]) -> tuple[str, ...]:
        """Return the names that could still help to meet the condition, in their order; none if it is met."""
        if self.is_met(happened):
            return ()
        found: dict[str, None] = {}
        for term in self.of:
            missing = (term,) if isinstance(term, str) else term.lacking(happened)
            found.update(dict.fromkeys(name for name in missing if name not in happened))
        return tuple(found)

    def to_json(self) -> Any:
        """Return the condition in the rule language; it is a list if every name is needed."""
        return self._terms_to_json() if self._plain or not self.of else self._form_to_json()

    def _form_to_json(self) -> dict[str, Any]:
        terms = self._terms_to_json()
        if self.at_least == len(self.of):
            return {"all": terms}
        return {"any": terms} if self.at_least == 1 else {"atLeast": self.at_least, "of": terms}

    def _terms_to_json(self) -> list[Any]:
        return [term if isinstance(term, str) else term._form_to_json() for term in self.of]  # noqa: SLF001 - of the same class

    def sentence(self) -> str:
        """Return the condition in words: ``a and b``, ``(a or b) and c``, ``at least 2 of a, b, c``."""
        terms = [term if isinstance(term, str) else f"({term.sentence()})" for term in self.of]
        if self.at_least == len(self.of):
            return " and ".join(terms) or "nothing"
        return " or ".join(terms) if self.at_least == 1 else f"at least {self.at_least} of {', '.join(terms)}"


def all_of(terms: Iterable[str | Condition]) -> Condition:
    """Return a condition that needs every term; repeated terms count once."""
    distinct = tuple(dict.fromkeys(terms))
    return Condition(len(distinct), distinct)


def condition_from_json(written: Any) -> Condition:
    """Return the condition that is written in the rule language and was validated."""
    if isinstance(written, dict):
        if "all" in written:
            return all_of(_terms(written["all"]))
        terms: Any = written.get("any", written.get("of"))
        return Condition(written.get("atLeast", 1), tuple(dict.fromkeys(_terms(terms))))
    return all_of(_terms(written))


def is_form(written: Any) -> bool:
    """Return whether a stored condition has a form that this version of the rule language knows."""
    if isinstance(written, dict):
        known = written.keys() in ({"all"}, {"any"}, {"atLeast", "of"})
        return known and isinstance(written.get("atLeast", 1), int) and is_form(next(_lists(written), None))
    return isinstance(written, list) and all(isinstance(term, str) or is_form(term) for term in written)


def mentioned(written: Any) -> Iterator[str]:
    """Yield the triggers in a stored condition, also if only a newer version understands its form."""
    if isinstance(written, str):
        yield written
    elif isinstance(written, list):
        for term in written:
            yield from mentioned(term)
    elif isinstance(written, dict):
        for terms in (*_lists(written), written.get("trigger")):
            yield from mentioned(terms)


def _lists(form: dict[str, Any]) -> Iterator[Any]:
    return (form[key] for key in ("all", "any", "of") if key in form)


def listed(terms: Any) -> Any:
    """Return a tuple or a set of terms as a list, and any other value unchanged."""
    # Check the real type: an object can pretend another class to isinstance().
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


#: The condition without a name. As an ``unless``, it never vetoes.
EMPTY = Condition(0, ())
