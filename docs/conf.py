"""Sphinx's configuration. Nothing is fetched, neither by a build nor by the pages."""

import sys
from pathlib import Path

import ridgemm

# `_gallery` lies beside this file: what Sphinx keeps between builds has to be importable
sys.path.insert(0, str(Path(__file__).parent))

project = "ridgemm"
author = "the ridgemm developers"
project_copyright = author
version = release = ridgemm.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    # brings MathJax along, where Sphinx's own would be loaded from the network
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
# a name in single backquotes is a link if it is one of ours
default_role = "autolink"
nitpicky = True
# what the docstrings of public functions name but the reference does not list
nitpick_ignore_regex = [("py:obj", r"ridgemm\..*"), ("py:.*", r"(numpy|joblib|sklearn)\..*")]

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
# parameters that a signature does not have, or in another order
numpydoc_validation_checks = {"PR02", "PR03"}

html_theme = "pydata_sphinx_theme"
html_title = f"ridgemm {release}"
html_static_path = ["_static"]
html_css_files = ["ridgemm.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "ridgemm"},
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    "show_toc_level": 2,
    "pygments_light_style": "tango",
    "pygments_dark_style": "monokai",
}
html_sidebars = {"api": [], "changes": [], "index": []}

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("ridgemm",),
    "filename_pattern": r"/plot_",
    # what examples share, and what they are not
    "ignore_pattern": r"(^|/)_\w+\.py$",
    "within_subsection_order": "_gallery.Order",
    "reset_argv": "_gallery.arguments",
    "download_all_examples": False,
    "write_computation_times": False,
    "show_signature": False,
    "min_reported_time": 1,
    "thumbnail_size": (400, 250),
    "matplotlib_animations": False,
}
