"""A user's text in a figure."""

import matplotlib.image
import pytest

from rd_lightning.display.figures import finish_panels, make_panels, save_figure

ODD = r"$\frac{x}$ [x] :B: $a$"


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_dollar_signs_are_no_formulas(tmp_path, scale):
    figure, panels = make_panels([ODD])
    figure.suptitle(ODD)
    panels[ODD].plot([1, 1000], [1, 2], label=ODD)
    panels[ODD].set(xscale=scale)
    panels[ODD].annotate(ODD, (1, 1))
    finish_panels(figure, panels, "y")
    save_figure(figure, tmp_path / "x.png")
    assert matplotlib.image.imread(tmp_path / "x.png").size
    ticks = [label.get_text() for label in panels[ODD].get_xticklabels()]
    parsed = [label.get_parse_math() for label in panels[ODD].get_xticklabels()]
    assert all(parsed)
    assert any("mathdefault{10" in tick for tick in ticks) == (scale == "log")
