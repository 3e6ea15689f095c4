"""The readings of GLEAM that docs/gleam.md lists have the counts that it gives them."""

import re

from pages import ROOT

WIDTH, DEPTH, RANK, EXPERTS = 768, 12, 16, 4
SHARED = 2 * WIDTH * RANK + EXPERTS * 9 * RANK**2  # A, B and the kernels
GATE = NOISE = RANK * EXPERTS
BLOCKS = dict(q=1, k=1, v=1, o=1, fc1=4, fc2=4)  # d x d matrices of a layer, by Linear
LOCAL = DEPTH * RANK**2 * sum(BLOCKS.values())
WRITTEN = dict(q=1, k=1, v=1, o=1, fc1=4, fc2=1)  # blocks of r that local transforms give

COUNTS = {
    'this one': SHARED + GATE + NOISE + LOCAL,
    'the other order': SHARED + GATE + NOISE + LOCAL,
    'two r x r transforms': SHARED + GATE + NOISE + DEPTH * len(BLOCKS) * 2 * RANK**2,
    'both of them on one side': SHARED + GATE + NOISE + DEPTH * len(BLOCKS) * 2 * RANK**2,
    'biases in the experts': SHARED + GATE + NOISE + LOCAL + EXPERTS * RANK,
    'biases in the local': SHARED + GATE + NOISE + LOCAL + DEPTH * RANK * sum(WRITTEN.values()),
    'a gate without the noise': SHARED + GATE + LOCAL,
}


def test_counts_of_readings():
    page = (ROOT / 'docs' / 'gleam.md').read_text('utf-8')
    section = page.split('## What the printed counts allow\n')[1].split('\n## ')[0]
    rows = re.findall(r'^\| (.*) \| ([\d,]+) \|$', section, re.MULTILINE)
    assert len(rows) == len(COUNTS)
    for (reading, count), (begins, true) in zip(rows, COUNTS.items(), strict=True):
        assert reading.startswith(begins)
        assert int(count.replace(',', '')) == true
        assert f'{true / 1e6:.2f}' == '0.07'  # what the paper prints
