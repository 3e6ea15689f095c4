"""How the site is built: ``make docs``.

Sphinx, since the reference is made of docstrings and its links are checked; MyST, since pages are
Markdown that reads on GitHub as it does here, with equations between dollars; Furo, since it has a
dark mode and fits a telephone without a line of ours. A warning is an error.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / '_ext'))

from gleam_mm.version import __version__

project = 'GLEAM-MM'
author = 'The GLEAM-MM contributors'
project_copyright = author
version = release = __version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.mathjax',
    'notebooks',
    'outside',
    'reference',
]
source_suffix = {'.md': 'markdown'}
html_theme = 'furo'
html_title = 'GLEAM-MM'
html_copy_source = False
html_show_sphinx = False
smartquotes = False  # they would turn the dashes of flags
highlight_language = 'none'  # of blocks that name no language

myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 3
# Glyphs as paths: equations need no fonts from a network, and shrink with a narrow page.
mathjax_path = 'https://cdn.jsdelivr.net/npm/mathjax@4/tex-svg.js'

autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
autodoc_member_order = 'bysource'
napoleon_use_ivar = True

# Pages that stand outside of docs/, where people look for them, and their names on the site.
outside_pages = {
    'README.md': 'index',
    'README.zh-CN.md': 'zh/index',
    'CHANGELOG.md': 'changelog',
    'CONTRIBUTING.md': 'contributing',
    'SECURITY.md': 'security',
    'benchmarks/minivtab/RESULTS.md': 'results/minivtab',
    'benchmarks/minivtab/TUNED.md': 'results/minivtab-tuned',
    'benchmarks/CLAIMS.md': 'results/claims',
    'benchmarks/SPEED.md': 'results/speed',
    'benchmarks/choices/README.md': 'results/choices',
    'benchmarks/real/README.md': 'results/real',
    'benchmarks/real/RESULTS.md': 'results/real-results',
}
