"""How wide a text is, and which part of it fits.

The fonts of the reader are not known, so widths are estimates, rather too large than too small. A drawing
also clips each text, because some characters are wider than any estimate.
"""

from __future__ import annotations

import unicodedata
from typing import Final, NamedTuple

from triggers.core.names import visible

#: The end of a text that was cut.
ELLIPSIS: Final = "…"


class Font(NamedTuple):
    """A font, as far as the drawing has to know it.

    Attributes:
        name: the CSS class of texts in this font.
        size: its size, in pixels.
        advance: how wide a Latin character is on average, as a part of the size.
    """

    name: str
    size: int
    advance: float


#: The font of names. Fixed-width fonts have a width of 0.6 of their size, or a little less.
NAME: Final = Font("name", 13, 0.61)
#: The font of the second line of a task: what it runs.
RUN: Final = Font("run", 11, 0.61)
#: The font of words and counts. It is not a fixed-width font; this is the average of a wide one.
WORD: Final = Font("word", 11, 0.6)
#: The font of the title.
TITLE: Final = Font("title", 14, 0.6)

#: The width of a character of another script, as a part of the size of the font.
_OTHER: Final = 1.05
#: The same for pictographs.
_PICTOGRAPH: Final = 1.45


#: Two characters that XML does not allow, although they are not control characters.
_NOT_XML: Final = {0xFFFE: "\\ufffe", 0xFFFF: "\\uffff"}


def displayable(text: str) -> str:
    """Return the text with escapes for what cannot be displayed, and for what XML does not allow."""
    return visible(text).translate(_NOT_XML)


def width(text: str, font: Font) -> float:
    """Return the estimated width of a text, in pixels."""
    if text.isascii():
        return len(text) * font.advance * font.size
    return sum(_part(character, font.advance) for character in text) * font.size


def _part(character: str, latin: float) -> float:
    if character < "\u0250" or character == ELLIPSIS:
        return latin
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0.0
    return _PICTOGRAPH if character >= "\U0001f000" else _OTHER


def fitting(text: str, font: Font, most: float) -> str:
    """Return the text, cut so that it is at most so wide, in pixels. What cannot be displayed is escaped."""
    shown = displayable(text[: int(most)])  # a visible character is more than a pixel wide
    if len(text) <= most and width(shown, font) <= most:
        return shown
    left = most - width(ELLIPSIS, font)
    kept = 0
    for character in shown:
        left -= width(character, font)
        if left < 0:
            break
        kept += 1
    return shown[:kept] + ELLIPSIS
