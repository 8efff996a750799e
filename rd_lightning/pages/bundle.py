"""Vega, Vega-Lite and Vega-Embed as one script, from vl-convert-python."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

from ..errors import InputError, reason

PACKAGE = "vl-convert-python"


def check_report(report: object) -> None:
    """Check the setting ``report`` of a command before hours of work.

    Raises:
        InputError: it is not True, False or "auto"; or it is True and the library is not installed.

    >>> check_report("auto")
    """
    if not isinstance(report, bool) and report != "auto":
        raise InputError(f"report is auto, true or false, not {report!r}")
    if report is True and find_spec("vl_convert") is None:
        raise InputError(
            f'report=true needs {PACKAGE}: pip install "rd-lightning[report]", or leave report out'
        )


def wants_page(report: object) -> bool:
    """Whether a command writes a page, by its setting ``report``: True, False, or "auto", which is
    where the library is installed and works.

    Raises:
        InputError: see :func:`check_report`; or ``report`` is True, and the library fails.

    >>> wants_page(False)
    False
    """
    check_report(report)
    if report is False:
        return False
    try:
        javascript()
    except InputError:
        if report is True:
            raise
        return False
    return True


@cache
def javascript() -> str:
    """The script, about 0.9 MB, such that it may stand inside of ``<script>``.

    Raises:
        InputError: the library is not installed, or fails.
    """
    try:
        import vl_convert

        script = vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue]
    except ImportError as error:
        raise InputError(f'a report needs {PACKAGE}: pip install "rd-lightning[report]"') from error
    except Exception as error:  # of a library in another language: whatever it is
        raise InputError(f"{PACKAGE} gave no script ({reason(error)}); install it again") from error
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
