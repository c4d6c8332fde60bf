"""How a drawing looks: the rules of its style sheet, with every color as a custom property.

The colors follow the light or dark scheme of the reader. A page that contains a drawing can set the custom
properties itself.
"""

from __future__ import annotations

from typing import Final

_LIGHT: Final = {
    "paper": "#ffffff",
    "box": "#ffffff",
    "tint": "#f3f5f8",
    "frame": "#c3cad4",
    "line": "#98a1ad",
    "ink": "#1b1f26",
    "soft": "#5f6671",
    "fired": "#2f4fc4",
    "fired-tint": "#eaeefb",
    "failed": "#b3261e",
    "running": "#0a5fc2",
    "scheduled": "#5b45c2",
    "unstarted": "#636b77",
    "finished": "#0a7657",
    "settled": "#5f6671",
}

_DARK: Final = {
    "paper": "#12151a",
    "box": "#1b1f26",
    "tint": "#20252d",
    "frame": "#3d4551",
    "line": "#66707d",
    "ink": "#e7eaef",
    "soft": "#98a1ae",
    "fired": "#92a9ff",
    "fired-tint": "#1f2740",
    "failed": "#ff8b80",
    "running": "#6fb3ff",
    "scheduled": "#b6a7ff",
    "unstarted": "#a2abb8",
    "finished": "#4cc99c",
    "settled": "#98a1ae",
}


def _properties(colors: dict[str, str]) -> str:
    return " ".join(f"--triggers-{name}: {value};" for name, value in colors.items())


#: The style sheet of a drawing. Every rule applies only inside an element of the class ``triggers-graph``.
STYLE: Final = f"""\
.triggers-graph {{ {_properties(_LIGHT)} }}
@media (prefers-color-scheme: dark) {{ .triggers-graph {{ {_properties(_DARK)} }} }}
.triggers-graph .paper {{ fill: var(--triggers-paper); }}
.triggers-graph text {{ font-family: system-ui, sans-serif; font-size: 11px; fill: var(--triggers-soft);
  unicode-bidi: isolate; direction: ltr; white-space: pre; }}
.triggers-graph text.name, .triggers-graph text.run {{
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
.triggers-graph text.name {{ font-size: 13px; font-weight: 500; fill: var(--triggers-ink); }}
.triggers-graph text.title {{ font-size: 14px; font-weight: 600; fill: var(--triggers-ink); }}
.triggers-graph .shape {{ fill: var(--triggers-box); stroke: var(--triggers-frame); stroke-width: 1.25; }}
.triggers-graph .trigger .shape {{ fill: var(--triggers-tint); }}
.triggers-graph .condition .shape {{ fill: var(--triggers-tint); }}
.triggers-graph .unfired .shape {{ fill: var(--triggers-box); stroke-dasharray: 4 3; }}
.triggers-graph .fired .shape, .triggers-graph .condition.met .shape {{ fill: var(--triggers-fired-tint);
  stroke: var(--triggers-fired); }}
.triggers-graph .removed .shape {{ stroke-dasharray: 4 3; }}
.triggers-graph .edge, .triggers-graph .head, .triggers-graph .bar {{
  fill: none; stroke: var(--triggers-line); stroke-width: 1.5; stroke-linejoin: round; }}
.triggers-graph .head {{ fill: var(--triggers-line); stroke-width: 1; }}
.triggers-graph .bar {{ stroke-width: 2.5; stroke-linecap: round; }}
.triggers-graph .unless {{ stroke-dasharray: 5 4; }}
.triggers-graph .edge.met {{ stroke: var(--triggers-fired); stroke-width: 2.5; }}
.triggers-graph .head.met {{ fill: var(--triggers-fired); stroke: var(--triggers-fired); }}
.triggers-graph .bar.met, .triggers-graph .unless.met {{ stroke: var(--triggers-failed); }}
.triggers-graph .edges text {{ stroke: var(--triggers-paper); stroke-width: 5; paint-order: stroke;
  stroke-linejoin: round; }}
.triggers-graph .icon {{ fill: none; stroke: currentColor; stroke-width: 1.5; stroke-linecap: round;
  stroke-linejoin: round; }}
.triggers-graph .icon .solid {{ fill: currentColor; }}
.triggers-graph .icon .mark {{ stroke: var(--triggers-box); }}
.triggers-graph .stripe {{ fill: currentColor; }}
.triggers-graph .of-fired {{ color: var(--triggers-fired); }}
.triggers-graph .of-failed {{ color: var(--triggers-failed); }}
.triggers-graph .of-running {{ color: var(--triggers-running); }}
.triggers-graph .of-scheduled {{ color: var(--triggers-scheduled); }}
.triggers-graph .of-unstarted {{ color: var(--triggers-unstarted); }}
.triggers-graph .of-finished {{ color: var(--triggers-finished); }}
.triggers-graph .of-skipped, .triggers-graph .of-replayed, .triggers-graph .of-abandoned {{
  color: var(--triggers-settled); }}
.triggers-graph text.middle {{ text-anchor: middle; }}
.triggers-graph text.count {{ fill: currentColor; }}
.triggers-graph a:hover .shape {{ stroke: var(--triggers-fired); }}
"""
