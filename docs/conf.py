"""How `make docs` builds the site: Sphinx with the Furo theme, offline, every warning an error."""

import logging
import os
import re
from typing import Any

import depthsieve

project = "depthsieve"
author = "the depthsieve authors"
copyright = "the depthsieve authors, Apache-2.0"
release = version = depthsieve.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",  # docstrings have Args, Returns and Raises
    "sphinx_click",
    "sphinx_copybutton",
]
root_doc = "index"

smartquotes = False  # they would make -- of an option a dash
default_role = "code"  # single backticks in help and docstrings

myst_heading_anchors = 4  # links to headings go by the names that GitHub gives them

# The tutorial runs while the site is built, on few scenes, so that what it shows is what it prints.
os.environ |= {"TUTORIAL_SCENES": "24", "TUTORIAL_STEPS": "60"}
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_output_stderr = "remove"  # advice to install widgets

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 90
napoleon_numpy_docstring = False

copybutton_exclude = ".linenos, .gp, .go"  # what one types, without the prompt and the output

html_theme = "furo"
html_title = f"depthsieve {release}"
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
html_show_sphinx = False


def as_written(app: Any, *arguments: Any) -> None:
    """Show help and docstrings as written: patterns such as ``*.png`` are no emphasis, examples are code."""
    lines = arguments[-1]
    lines[:] = [re.sub(r"^(Examples?: )(.+)$", r"\1``\2``", line) for line in lines]
    code_or_star = re.compile(r"(``.*?``)|(?<![*\w`])\*(?=[\w./])")
    lines[:] = [code_or_star.sub(lambda found: found[1] or r"\*", line) for line in lines]


def setup(app: Any) -> None:
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)
    events = ("description", "options", "arguments", "epilog")
    for event in ("autodoc-process-docstring", *(f"sphinx-click-process-{part}" for part in events)):
        app.connect(event, as_written, priority=1000)
