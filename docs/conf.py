"""Sphinx configuration. The pages of settings and of commands are written anew from the code at every build."""

from pathlib import Path

from mailsrv import __version__
from mailsrv.cli.reference import write_commands
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

_folder = Path(__file__).parent / "reference"
_folder.mkdir(exist_ok=True)
for _name, _text in (("settings.rst", write_reference()), ("commands.rst", write_commands())):
    _page = _folder / _name
    if not _page.exists() or _page.read_text() != _text:
        _page.write_text(_text)
