"""The flags that tools share."""

import os
from argparse import Namespace

import pytest

from gleam_mm.config import recipes
from gleam_mm_cli.flags import overrides


@pytest.mark.parametrize(
    ('words', 'told'),
    [
        (['model.petl.rank'], '--cfg-options model.petl.rank: expected KEY=VALUE'),
        (['=3'], '--cfg-options =3: expected KEY=VALUE'),
        (['a=1', ''], '--cfg-options : expected KEY=VALUE'),
        (['model.petl.sites=[qkv],[fc1]'], 'a list of lists model.petl.sites=[[a,b],[c]]'),
        (['a=(1,2),(3,4)'], 'its brackets do not fit'),
        (['a=[1,2'], 'its brackets do not fit'),
    ],
)
@pytest.mark.parametrize('tool', ['train.py', 'test.py', 'search.py', 'merge.py', 'params.py'])
def test_words_that_are_no_options_take_one_line(call, tool, words, told):
    positional = {'train.py': 1, 'params.py': 1, 'merge.py': 3}.get(tool, 2)
    done = call(tool, *['x'] * positional, '--cfg-options', *words)
    assert done.code == 2
    assert told in done.err
    assert done.err.startswith(f'{tool}: error: ') and done.err.count('\n') == 1


def test_a_sweep_reads_them_as_well(call):
    for flag in ('--options', '--cfg-options', '--grid'):
        done = call('sweep.py', 'run', flag, 'alpha')
        assert done.code == 2
        assert done.err.startswith(f'sweep.py: error: {flag} alpha: expected ')
        assert done.err.count('\n') == 1


def test_what_old_launchers_tell(call, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')  # so that it is put back
    monkeypatch.delenv('LOCAL_RANK')
    done = call('train.py', 'nowhere', '--local-rank', '3')
    assert done.code == 2 and 'nowhere' in done.err
    assert os.environ['LOCAL_RANK'] == '3'


def test_where_results_go_is_looked_at_first(call):
    for out, item, told in (
        ('x.txt', 'metrics', '--out x.txt: metrics go to a file with .json, '),
        ('x', 'metrics', '--out x: metrics'),
        ('x.json', 'pred', '--out x.json: predictions go to a .pkl file'),
    ):
        done = call('test.py', 'nowhere', 'nothing.pth', '--out', out, '--out-item', item)
        assert done.code == 2
        assert told in done.err and 'nowhere' not in done.err


@pytest.mark.parametrize('tool', ['train.py', 'incremental.py'])
def test_a_seed_that_is_none_takes_one_line(call, config, tool):
    done = call(tool, config, '--seed', -1)
    assert done.code == 2
    assert 'randomness.seed=-1: choose a whole number' in done.err and done.err.count('\n') == 1


def test_a_seed_comes_into_a_config_without_any(tmp_path):
    file = tmp_path / 'mine.py'
    file.write_text("model = dict(type='PETLClassifier', backbone=dict(type='VisionTransformer'))")
    for seed, expected in ((3, {'seed': 3}), (None, None)):
        options = overrides(Namespace(seed=seed, cfg_options={'work_dir': 'here'}))
        cfg = recipes.load(file, options)
        assert (cfg.get('randomness'), cfg.work_dir) == (expected, 'here')
