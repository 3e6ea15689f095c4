"""Links between the site and what stands outside of ``docs/``.

On GitHub a link is a path from the file that has it. Here a page may be included from elsewhere, so
that its links and pictures are made paths from the page that includes it; and a link to a file that
is included has to lead to the page that includes it.
"""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

_LINK = re.compile(r'(?<=\]\()(?![a-z]+:|#|/)([^)#\s]+)')


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_config_value('outside_pages', {}, 'env')
    app.connect('source-read', _of_page)
    app.connect('include-read', _of_included)
    return {'parallel_read_safe': True}


def _of_page(app: Sphinx, docname: str, source: list[str]) -> None:
    file = Path(app.srcdir, f'{docname}.md')
    source[0] = _linked(app, source[0], file, file)


def _of_included(app: Sphinx, path: Path, _: str, source: list[str]) -> None:
    page = Path(app.srcdir, f'{app.env.docname}.md')
    source[0] = _linked(app, source[0], Path(app.srcdir, path), page)


def _linked(app: Sphinx, text: str, file: Path, page: Path) -> str:
    """The text of a file, its links as they have to be on a page."""
    root = Path(app.srcdir).parent

    def link(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(file.parent / match[1]))
        if target.is_relative_to(root):
            name = app.config.outside_pages.get(str(target.relative_to(root)))
            if name is not None:
                target = Path(app.srcdir, f'{name}.md')
        return os.path.relpath(target, page.parent)

    return _LINK.sub(link, text)
