"""The notebook, from its first cell to its last in a kernel of its own."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / 'docs').rglob('*.ipynb'))


@pytest.mark.slow
@pytest.mark.parametrize('file', NOTEBOOKS, ids=lambda file: file.name)
def test_it_runs(file, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip('nbformat'), pytest.importorskip('nbclient')
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    book = nbformat.read(file, as_version=4)
    assert not any(cell.get('outputs') for cell in book.cells), 'clear the outputs'
    client = nbclient.NotebookClient(
        book, timeout=600, kernel_name='python3', resources={'metadata': {'path': str(tmp_path)}}
    )
    client.execute()
    last = [cell for cell in book.cells if cell.cell_type == 'code'][-1]
    assert last.outputs[-1]['data']['text/plain'] == 'True'
