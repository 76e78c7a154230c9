"""Figures of the documentation: drawings in the page's colours, with words for readers who hear the page."""

import runpy
from pathlib import Path
from types import SimpleNamespace

from jaxinit.plot import depth_profiles, new_figure

PATH = Path(__file__).parents[2] / "docs" / "_ext" / "kernel_startup.py"


def test_kernels_draw_figures_in_the_colours_of_the_page(synthetic):
    known = {}
    html = SimpleNamespace(for_type_by_name=lambda module, name, draw: known.update({(module, name): draw}))
    shell = SimpleNamespace(display_formatter=SimpleNamespace(formatters={"text/html": html}))
    runpy.run_path(str(PATH), init_globals={"get_ipython": lambda: shell})
    draw = known["matplotlib.figure", "Figure"]
    page = draw(depth_profiles(synthetic.propagation(depth=3)))
    assert (
        page.startswith('<div class="drawing"><svg')
        and "currentColor" in page
        and page.endswith("</svg></div>")
    )
    assert 'aria-label="Signal: second moment; Gradient: second moment"' in page
    figure, (ax,) = new_figure()
    ax.set(xlabel="layer", ylabel="q")
    assert 'aria-label="q against layer"' in draw(figure)
