"""Sphinx configuration. The settings page is written anew from the records at every build."""

from pathlib import Path

from mailsrv import __version__
from mailsrv.config.reference import write_reference

project = "mailsrv"
author = "The mailsrv developers"
copyright = "The mailsrv developers"
release = __version__
version = __version__

extensions = []
html_theme = "furo"
html_title = f"mailsrv {release}"
exclude_patterns = ["_build"]
root_doc = "index"
nitpicky = False

_page = Path(__file__).parent / "reference" / "settings.rst"
_page.parent.mkdir(exist_ok=True)
_text = write_reference()
if not _page.exists() or _page.read_text() != _text:
    _page.write_text(_text)
