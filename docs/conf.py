"""Configuration of Sphinx."""

from __future__ import annotations

import os
from importlib.metadata import version as metadata_version

from stomics_tools import baselines, model

project = "stomics-tools"
author = "The stomics-tools developers"
copyright = f"2026, {author}"
release = version = metadata_version(project)

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
templates_path = ["_templates"]

autosummary_generate = True
autosummary_imported_members = True
# Models check the arguments of the methods that scvi-tools gives them, for which they have them as their own.
foreign = {
    name
    for documented in vars(model).values()
    if isinstance(documented, type)
    for name, value in vars(documented).items()
    if str(getattr(getattr(value, "__func__", value), "__module__", "")).startswith("scvi")
}
# What classes have from bases of this package; what scvi-tools and scikit-learn give them beside is documented there.
autosummary_context = {
    "shared": sorted(
        {
            name
            for documented in (*vars(model).values(), *vars(baselines).values())
            if isinstance(documented, type)
            for base in documented.__mro__
            if base.__module__.startswith("stomics_tools.")
            for name in vars(base)
            if not name.startswith("_") and name not in foreign
        }
    ),
    "foreign": sorted(foreign),
}
autodoc_member_order = "bysource"
autodoc_typehints = "both"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_custom_sections = [("Warns", "returns_style")]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_output_stderr = "remove"
copybutton_prompt_text = ">>> "
copybutton_exclude = ".linenos, .gp, .go"

# Inventories of other projects come over the network: only where a build asks for them.
if os.environ.get("STOMICS_DOCS_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable", None),
        "lightning": ("https://lightning.ai/docs/pytorch/stable", None),
        "mudata": ("https://mudata.readthedocs.io/stable", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "pandas": ("https://pandas.pydata.org/docs", None),
        "python": ("https://docs.python.org/3", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable", None),
        "scipy": ("https://docs.scipy.org/doc/scipy", None),
        "scvi-tools": ("https://docs.scvi-tools.org/en/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }

# Tutorials run in the environment that builds the docs, and show their figures in the page.
os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
os.environ.pop("MPLBACKEND", None)

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
