"""Colours of the pages, as variables of CSS: one set for light, one for dark.

The series' colours are those of Okabe and Ito (2008), which people who see few colours tell apart;
in dark they are lighter. Charts name the variables, so that a page changes its colours at once.
"""

from __future__ import annotations

LIGHT = {
    "bg": "#ffffff",
    "panel": "#f6f7f9",
    "text": "#1b1f24",
    "muted": "#57606a",
    "line": "#d8dee4",
    "accent": "#0b5fa5",
    "blue": "#0072b2",
    "orange": "#c77f00",
    "green": "#00845f",
    "vermillion": "#c44e00",
    "purple": "#b05a8c",
    "sky": "#2b8fc7",
    "grey": "#808890",
    "seq0": "#440154",
    "seq1": "#3b528b",
    "seq2": "#21918c",
    "seq3": "#4fae5a",
    "seq4": "#c9a800",
}
DARK = {
    "bg": "#14171b",
    "panel": "#1c2127",
    "text": "#e6e9ec",
    "muted": "#9aa4ae",
    "line": "#343b43",
    "accent": "#6db6ee",
    "blue": "#4ba3dc",
    "orange": "#f0b040",
    "green": "#35c79a",
    "vermillion": "#f58345",
    "purple": "#d793b9",
    "sky": "#8fd0f5",
    "grey": "#8b949e",
    "seq0": "#a878d0",
    "seq1": "#7394e8",
    "seq2": "#2fb5ae",
    "seq3": "#7fdc7a",
    "seq4": "#fde725",
}
CATEGORIES = ("blue", "orange", "green", "vermillion", "purple", "sky")
"""For classes without a colour of their own."""
SEQUENCE = ("seq0", "seq1", "seq2", "seq3", "seq4")
"""From low to high; after viridis."""


def colour(name: str) -> str:
    """As a chart or a style names it.

    >>> colour("blue")
    'var(--blue)'
    """
    return f"var(--{name})"


def css_variables() -> str:
    """The rules that set them: dark where the system is or the page is told so, light in print."""
    light, dark = (
        "color-scheme:"
        + name
        + ";"
        + "".join(f"--{key}:{value};" for key, value in colours.items())
        for name, colours in (("light", LIGHT), ("dark", DARK))
    )
    return (
        f":root{{{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}\n"
        f":root[data-theme=dark]{{{dark}}}\n"
        f"@media print{{:root,:root[data-theme],:root:not([data-theme=light]){{{light}}}}}\n"
    )
