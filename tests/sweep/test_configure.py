"""From files and flags to the settings of a sweep."""

import pytest
from sweep_place import OPTIONS

from gleam_mm import recipes
from gleam_mm.cli import UserError
from gleam_mm.sweep import configure
from gleam_mm.sweep.configure import make_sweep, parse_gpus, parse_grid, parse_seeds, read_file


def settings(**changes):
    defaults = dict(backbone='vit-mini', methods='gleam-t,lora', datasets='mini-digits')
    return {**defaults, **changes}


def test_flags():
    assert parse_grid(['alpha=0.01,1', 'top_k=1,2', 'sites=[qkv],[qkv,fc1]', 'act=gelu']) == {
        'alpha': [0.01, 1],
        'top_k': [1, 2],
        'sites': [['qkv'], ['qkv', 'fc1']],
        'act': ['gelu'],
    }
    assert parse_seeds('3') == 3
    assert parse_seeds('0,7') == [0, 7]
    for words in (['alpha'], ['alpha='], ['alpha=1,,2']):
        with pytest.raises(UserError, match='--grid alpha'):
            parse_grid(words)
    with pytest.raises(UserError, match='--seeds many'):
        parse_seeds('many')


def test_gpus(monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,6')
    assert parse_gpus('0,1') == ['4', '6']
    assert parse_gpus(None) == []
    with pytest.raises(UserError, match='there are 2 GPUs'):
        parse_gpus('2')


def test_each_method_has_the_part_of_the_grid_that_it_has_options_for():
    grid = {'alpha': [0.1, 1], 'top_k': [1, 2], 'optim_wrapper.optimizer.lr': [1e-3]}
    name, sweep = make_sweep(settings(methods='gleam-t,lora,linear', grid=grid, seeds=3))
    assert name == 'vit-mini_mini-digits'
    assert sweep.seeds == (0, 1, 2)
    assert [len(sweep.points(method)) for method in sweep.methods] == [4, 2, 1]
    assert sweep.config_options(sweep.select_jobs('gleam-t', 'mini-digits')[1]) == {
        'model.petl.alpha': 0.1,
        'model.petl.top_k': 2,
        'optim_wrapper.optimizer.lr': 1e-3,
    }
    assert not make_sweep(settings())[1].select_jobs('lora', 'mini-digits')


def test_names():
    _, sweep = make_sweep(settings(methods=['gleam-*', 'lora'], datasets='vtab-specialized'))
    assert sweep.methods == ('gleam-b', 'gleam-l', 'gleam-t', 'lora')
    assert len(sweep.datasets) == 4


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(methods=None), '--methods: give it'),
        (dict(backbone='vit-x'), "unknown backbone 'vit-x'.*closest: vit-"),
        (dict(datasets='vtab-cifer'), "unknown dataset 'vtab-cifer'.*vtab-cifar"),
        (dict(grid={'alhpa': [1]}), "none of gleam-t, lora has an option 'alhpa'"),
        (dict(grid={'alpha': 1}), r'grid\.alpha: expected a list'),
        (dict(grid={'alpha': [1, 1.0]}), r'grid\.alpha: a value is there twice'),
        (dict(seeds=0), '--seeds 0'),
        (dict(seeds=[1, 1]), '--seeds'),
        (dict(heartbeat=0), '--heartbeat 0'),
    ],
)
def test_mistakes(changes, message):
    with pytest.raises(UserError, match=message):
        make_sweep(settings(**changes))


@pytest.mark.parametrize('file', sorted((recipes.config_root() / 'sweeps').glob('*.py')))
def test_the_sweeps_that_ship(file):
    name, sweep = make_sweep(read_file(file.stem))
    assert name == file.stem
    assert any(sweep.points(method) for method in sweep.methods)


def test_a_file_with_an_unknown_key(tmp_path):
    file = tmp_path / 'mine.py'
    file.write_text("backbone = 'vit-b'\ndataset = 'vtab'\n")
    with pytest.raises(UserError, match=r"mine\.py: unknown key 'dataset'; a sweep has: name,"):
        read_file(str(file))
    with pytest.raises(UserError, match='nowhere: no such file, and no sweep of'):
        read_file('nowhere')


def test_what_would_make_every_training_fail_is_found_before(place):
    _, sweep = make_sweep(settings(backbone='tiny', datasets='vtab-kitti', options=OPTIONS))
    configure.check(sweep)
    _, elsewhere = make_sweep(
        settings(
            backbone='tiny',
            datasets='vtab-kitti',
            options={**OPTIONS, 'train_dataloader.dataset.data_root': 'nowhere'},
        )
    )
    with pytest.raises(FileNotFoundError, match='nowhere'):
        configure.check(elsewhere)
    _, without = make_sweep(settings(backbone='tiny', datasets='folder', options={}))
    with pytest.raises(ValueError, match='needs datasets with a `split`'):
        configure.check(without)
