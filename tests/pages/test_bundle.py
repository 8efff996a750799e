"""Which pages are written where the library is not installed."""

import pytest

from rd_lightning.errors import InputError
from rd_lightning.pages import bundle


@pytest.fixture
def absent(monkeypatch):
    bundle.javascript.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "vl_convert", None)
    monkeypatch.setattr(bundle, "find_spec", lambda name: None)
    yield
    bundle.javascript.cache_clear()


@pytest.mark.usefixtures("absent")
def test_without_the_library_there_is_no_page_unless_it_is_asked_for():
    assert bundle.wants_page("auto") is False
    bundle.check_report("auto")
    for ask in (bundle.check_report, bundle.wants_page):
        with pytest.raises(
            InputError, match=r'report=true needs vl-convert-python: pip install "rd'
        ):
            ask(True)
    with pytest.raises(InputError, match="a report needs vl-convert-python"):
        bundle.javascript()


@pytest.mark.parametrize("report", ["yes", None, 1, "true"])
def test_other_settings_are_refused(report):
    with pytest.raises(InputError, match="report is auto, true or false, not"):
        bundle.wants_page(report)
    assert bundle.wants_page(False) is False


def test_the_script_may_stand_in_a_page():
    pytest.importorskip("vl_convert", reason='needs vl-convert-python: pip install ".[report]"')
    script = bundle.javascript()
    assert "vegaEmbed" in script
    assert "</script" not in script.lower() and "<!--" not in script
    assert len(script) < 1_500_000
