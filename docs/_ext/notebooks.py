"""Notebooks as pages: their text as it is, their code as blocks, with the file to download."""

import json
from pathlib import Path

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_source_suffix('.ipynb', 'notebook')
    app.add_source_parser(NotebookParser)
    return {'parallel_read_safe': True}


class NotebookParser(MystParser):
    """Reads a notebook as the Markdown page that it would be."""

    supported = ('notebook',)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Reads one, from its JSON."""
        cells = [
            source if cell['cell_type'] == 'markdown' else f'```python\n{source}\n```'
            for cell in json.loads(inputstring)['cells']
            if (source := ''.join(cell['source']))
        ]
        name = Path(document['source']).name
        cells.insert(1, f'*A notebook: {{download}}`{name} <{name}>`.*')
        super().parse('\n\n'.join(cells), document)
