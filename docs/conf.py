"""Settings of the documentation: `make docs` builds it into docs/_build/html, without any network.

Pages with code cells are notebooks kept as text: the build executes them, and an exception in one ends it.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import jaxinit
from jaxinit.plot import variables

HERE = Path(__file__).parent
GENERATED = HERE / "_build" / "generated"
sys.path.insert(0, str(HERE / "_ext"))
# Inherited by the kernels of the notebooks, which compile for longer than they run.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads wait by spinning, two kernels at a time
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
# Figures are drawings in the colours of the page, which the kernels make and a style sheet of their own completes.
os.environ["IPYTHONDIR"] = str(GENERATED / "ipython")
profile = GENERATED / "ipython" / "profile_default"
(profile / "startup").mkdir(parents=True, exist_ok=True)
shutil.copy(HERE / "_ext" / "kernel_startup.py", profile / "startup")
(profile / "ipython_kernel_config.py").write_text(
    "c.HistoryManager.enabled = False\n"
)  # kernels run side by side
(GENERATED / "static").mkdir(exist_ok=True)
(GENERATED / "static" / "figures.css").write_text(
    f"body {{ {variables('light')} }}\n"
    f"@media screen {{ body[data-theme='dark'] {{ {variables('dark')} }} }}\n"
    "@media screen and (prefers-color-scheme: dark) {\n"
    f"  body:not([data-theme='light']) {{ {variables('dark')} }}\n}}\n"
)

project = "jaxinit"
author = "The jaxinit authors"
copyright = "The jaxinit authors"
version = release = jaxinit.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "house_docstrings",
    "mathml",
]
exclude_patterns = ["_build", "_ext"]
nitpicky = True
nitpick_ignore = [
    ("py:class", "jaxinit.records._codec.T"),  # a type variable
    ("py:class", "jaxinit.probe._trace.Traced"),  # what `products` makes its result of
]
nitpick_ignore_regex = [
    ("py:.*", r"(?!jaxinit).*"),  # other libraries, whose inventories would have to be downloaded
]
suppress_warnings = ["ref.python"]  # `label` is an attribute of many records, all of them meant

# ---- pages and notebooks -------------------------------------------------------------------------------------------
source_suffix = {".md": "myst-nb"}
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
nb_execution_mode = os.environ.get(
    "JAXINIT_DOCS_EXECUTE", "force"
)  # "cache" while writing, "off" for a quick look
nb_execution_timeout = 240
nb_execution_allow_errors = False
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True

# ---- the reference -------------------------------------------------------------------------------------------------
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Source", "Holds"]
toc_object_entries_show_parents = "hide"

# ---- looks ---------------------------------------------------------------------------------------------------------
html_theme = "furo"
html_title = "jaxinit"
html_static_path = ["_static", str(GENERATED / "static")]
html_css_files = ["figures.css", "jaxinit.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
math_number_all = False
math_eqref_format = "({number})"
