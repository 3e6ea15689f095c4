"""A Chinese page has the code of the English one, but for comments."""

import re

import pytest
from pages import ROOT, blocks

PAIRS = {
    'README.zh-CN.md': 'README.md',
    'docs/zh/start.md': 'docs/start.md',
    **{
        f'docs/zh/{page.name}': f'docs/tutorials/{page.name}'
        for page in sorted((ROOT / 'docs' / 'tutorials').glob('*.md'))
    },
}


def code_of(page):
    """The lines of code on a page; pages' commands share a folder, so that files differ."""
    text = '\n'.join(block.code for block in blocks(page) if block.language)
    lines = (re.sub(r'(^|\s+)# .*', '', line) for line in text.splitlines())
    return [line.replace('my_config.py', 'mine.py') for line in lines if line]


@pytest.mark.parametrize('page', PAIRS)
def test_the_code_is_the_same(page):
    code = code_of(page)
    assert code
    assert code == code_of(PAIRS[page])


@pytest.mark.parametrize('page', ('README.md', 'README.zh-CN.md'))
def test_the_front_page_is_short(page):
    assert len((ROOT / page).read_text('utf-8').splitlines()) <= 150
