"""From files and flags to the settings of a sweep."""

import argparse
import copy

import pytest
from mmengine.config import Config
from sweep_place import OPTIONS

from gleam_mm.config import recipes
from gleam_mm.errors import UserError
from gleam_mm.sweep import configure, schema, training
from gleam_mm.sweep.commands import settings_of
from gleam_mm.sweep.configure import make_sweep, parse_gpus, parse_seeds, read_file, read_grid
from gleam_mm.sweep.plan import Variant


def settings(**changes):
    defaults = dict(backbone='vit-mini', methods='gleam-t,lora', datasets='mini-digits')
    return {**defaults, **changes}


def test_flags():
    assert read_grid({'alpha': [0.01, 1], 'top_k': 1, 'sites': [['qkv'], ['qkv', 'fc1']]}) == {
        'alpha': [0.01, 1],
        'top_k': [1],
        'sites': [['qkv'], ['qkv', 'fc1']],
    }
    assert parse_seeds('3') == 3
    assert parse_seeds('0,7') == [0, 7]
    for values in ('', [1, '', 2]):
        with pytest.raises(UserError, match='--grid alpha: a value is empty'):
            read_grid({'alpha': values})
    with pytest.raises(UserError, match='--seeds many'):
        parse_seeds('many')


def test_flags_win_over_what_they_name_in_a_file(tmp_path):
    file = tmp_path / 'mine.py'
    file.write_text(
        "methods = ['gleam-t']\ngrid = dict(alpha=[1, 10])\nseeds = 3\n"
        "options = {'train_cfg.max_epochs': 6, 'optim_wrapper.clip_grad': dict(max_norm=1.0)}\n"
    )
    flags = dict.fromkeys((*configure.KEYS, 'file'))

    def told(**given):
        return settings_of(argparse.Namespace(**{**flags, 'file': str(file), **given}))

    assert told() == read_file(str(file))
    found = told(seeds='0,7', options={'train_cfg.max_epochs': 2}, grid={'top_k': 1})
    assert found['options'] == {
        'train_cfg.max_epochs': 2,
        'optim_wrapper.clip_grad': {'max_norm': 1.0},
    }
    assert (found['seeds'], found['grid'], found['methods']) == (
        [0, 7],
        {'top_k': [1]},
        ['gleam-t'],
    )
    rate = 'optim_wrapper.optimizer.lr'
    file.write_text(f"options = {{{rate!r}: 1e-3, 'optim_wrapper.optimizer': dict(lr=5.0)}}\n")
    cfg = recipes.load('vit-mini_lora_mini-digits', told(options={rate: 0.25})['options'])
    assert cfg.optim_wrapper.optimizer.lr == 0.25
    file.write_text("options = ['train_cfg.max_epochs=6']\n")
    with pytest.raises(UserError, match='expected a mapping of keys'):
        make_sweep(told())


def test_a_grid_of_the_command_line_is_that_of_every_method(tmp_path):
    file = tmp_path / 'mine.py'
    file.write_text(
        "backbone = 'vit-mini'\nmethods = ['gleam-t', 'linear']\ndatasets = ['mini-digits']\n"
        "grid = {'optim_wrapper.optimizer.lr': [1e-3]}\ngrids = {'gleam-*': {'top_k': [1, 2]}}\n"
    )
    flags = {**dict.fromkeys((*configure.KEYS, 'file')), 'file': str(file)}
    rates = {'optim_wrapper.optimizer.lr': [1e-2, 3e-2]}
    _, as_told = make_sweep(settings_of(argparse.Namespace(**flags)))
    _, changed = make_sweep(settings_of(argparse.Namespace(**{**flags, 'grid': rates})))
    assert as_told.grid == {
        'gleam-t': {'top_k': [1, 2]},
        'linear': {'optim_wrapper.optimizer.lr': [1e-3]},
    }
    assert changed.grid == {'gleam-t': rates, 'linear': rates}


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


def test_methods_have_grids_of_their_own():
    rate = 'optim_wrapper.optimizer.lr'
    changes = dict(
        methods='gleam-t,gleam-l,lora-r4,linear',
        variants={'lora-r4': {'method': 'lora', 'rank': 4}, 'lora-r2': {'method': 'lora'}},
        grid={rate: [1e-3, 1e-2]},
        grids={
            'gleam-l': {'alpha': [1]},
            'gleam-*': {'top_k': [1, 2]},
            'lora': {'alpha': [4, 8], rate: [1e-4]},
            'lora-r2': {'alpha': [2]},
        },
    )
    _, sweep = make_sweep(settings(**changes))
    assert sweep.grid == {
        'gleam-t': {'top_k': [1, 2]},
        'gleam-l': {'alpha': [1]},  # the first that fits
        'lora-r4': {'alpha': [4, 8], rate: [1e-4]},  # that of what it is a variant of
        'linear': {rate: [1e-3, 1e-2]},
    }
    # Its own name wins over that of what it is a variant of, wherever that stands.
    _, sweep = make_sweep(settings(**{**changes, 'methods': 'lora-r2,linear'}))
    assert sweep.grid['lora-r2'] == {'alpha': [2]}
    # Nobody has the shared one then.
    _, sweep = make_sweep(settings(**{**changes, 'methods': 'gleam-l', 'grid': {'rank': [4]}}))
    assert sweep.grid == {'gleam-l': {'alpha': [1]}}


def preset(method):
    return Config.fromfile(recipes.config_root() / '_base_' / 'methods' / f'{method}.py').method


def test_vtab_gives_every_method_as_many_trials():
    found = read_file('vtab')
    others = ['ssf', 'adaptformer', 'convpass', 'repadapter', 'slora', 'fact-tk', 'vpt-deep']
    _, sweep = make_sweep({**found, 'methods': [*found['methods'], *others, 'chavan-gleam-l']})
    assert {len(sweep.points(method)) for method in sweep.methods} == {20}
    scales = {
        method: sweep.grid[method][name]
        for method in sweep.methods
        for name in ('alpha', 'scale')
        if name in sweep.grid[method]
    }
    assert len(scales) == 10
    scales['lora'] = [alpha / preset('lora').rank for alpha in scales['lora']]
    assert all(values == [0.01, 0.1, 1, 10, 100] for values in scales.values())
    papers = [{'alpha': alpha, 'top_k': k} for alpha in scales['lora'] for k in (1, 2, 3)]
    for method in ('gleam-t', 'gleam-b', 'gleam-l'):
        points = sweep.points(method)
        assert all(point in points for point in papers)
        assert {name: preset(method)[name] for name in ('alpha', 'top_k')} in points
    job = sweep.select_jobs('chavan-gleam-l', 'vtab-cifar')[0]
    cfg, _ = training.make_config(sweep, job)
    assert (cfg.optim_wrapper.optimizer.lr, cfg.train_cfg.max_epochs) == (1e-4, 500)


def test_names():
    _, sweep = make_sweep(settings(methods=['gleam-*', 'lora'], datasets='vtab-specialized'))
    assert sweep.methods == ('gleam-b', 'gleam-l', 'gleam-t', 'lora')
    assert len(sweep.datasets) == 4


SEEDS = (0, -1, True, '3', 0.5, [], [0.5], [True], [1, 1], [-1])  # that are none
VARIANTS = {
    'lora': {'optim_wrapper.optimizer.lr': 5e-3},
    'gleam-l-k1': {'method': 'gleam-l', 'top_k': 1, 'optim_wrapper.optimizer.lr': 2e-3},
    'gleam-l-noisy': {'method': 'gleam-l', 'noise': 3},  # unused: GLEAM has no such option
}


def test_variants_are_methods_with_options_of_their_own():
    changes = dict(
        methods='lora,gleam-l,gleam-l-k*',
        variants=VARIANTS,
        options={'optim_wrapper.optimizer.lr': 1e-3, 'train_cfg.max_epochs': 3},
        grid={'alpha': [1, 10]},
    )
    _, sweep = make_sweep(settings(**changes))
    assert sweep.methods == ('lora', 'gleam-l', 'gleam-l-k1')
    assert list(sweep.variants) == ['lora', 'gleam-l-k1']
    options = {
        method: sweep.config_options(sweep.select_jobs(method, 'mini-digits')[1])
        for method in sweep.methods
    }
    shared = {'model.petl.alpha': 10, 'train_cfg.max_epochs': 3}
    rate = 'optim_wrapper.optimizer.lr'
    assert options == {
        'lora': {**shared, rate: 5e-3},
        'gleam-l': {**shared, rate: 1e-3},
        'gleam-l-k1': {**shared, rate: 2e-3, 'model.petl.top_k': 1},
    }
    cfg, _ = training.make_config(sweep, sweep.final_jobs('gleam-l-k1', 'mini-digits')[0])
    assert (cfg.model.petl.type, cfg.model.petl.rank, cfg.model.petl.top_k) == ('GLEAM', 16, 1)
    assert cfg.optim_wrapper.optimizer.lr == 2e-3


def test_the_grid_wins_over_variants():
    grid = {'top_k': [2, 3], 'optim_wrapper.optimizer.lr': [1e-2]}
    _, sweep = make_sweep(settings(methods='gleam-l-k1', variants=VARIANTS, grid=grid))
    job = sweep.select_jobs('gleam-l-k1', 'mini-digits')[0]
    assert sweep.config_options(job) == {'model.petl.top_k': 2, 'optim_wrapper.optimizer.lr': 1e-2}


def test_a_config_is_by_its_own_options_alone():
    rate = 'optim_wrapper.optimizer.lr'
    changes = dict(
        methods='lora,sgd,linear',
        options={'optim_wrapper': dict(optimizer=dict(lr=5e-4)), rate: 1e-3},
        variants={
            'sgd': {
                'method': 'lora',
                'optim_wrapper.optimizer': dict(_delete_=True, type='SGD', lr=1.0),
            }
        },
        grids={'lora': {rate: [1e-2, 3e-2]}, 'sgd': {rate: [0.1, 0.2]}},
    )
    _, sweep = make_sweep(settings(**changes))
    told = copy.deepcopy(sweep.to_dict())
    for _ in range(2):
        found = [
            training.make_config(sweep, job)[0].optim_wrapper.optimizer
            for job in (
                *sweep.select_jobs('lora', 'mini-digits'),
                *sweep.select_jobs('sgd', 'mini-digits'),
                *sweep.final_jobs('linear', 'mini-digits'),
            )
        ]
        assert [optimizer.lr for optimizer in found] == [1e-2, 3e-2, 0.1, 0.2, 1e-3]
        assert found[2] == dict(type='SGD', lr=0.1)
    assert sweep.to_dict() == told  # as a study has it, and what workers are told


@pytest.mark.parametrize(
    ('variants', 'message'),
    [
        (
            {'gleam-l-noisy': VARIANTS['gleam-l-noisy']},
            r"noisy\.noise: gleam-l has no option 'noise'",
        ),
        ({'mine': {}}, r"variants\.mine: unknown method 'mine'.*; 'method' says"),
        ({'mine': {'method': 'gleam-k'}}, r"unknown method 'gleam-k' \(did you mean 'gleam-"),
        ({'lora': {'method': 'gleam-l'}}, r'variants\.lora: lora is a method itself'),
        ({'lora_5': {'method': 'lora'}}, "'lora_5' cannot be a name"),
        ({'../lora': {'method': 'lora'}}, 'cannot be a name'),
        ({'lora': 5e-3}, r'variants\.lora: expected a dict of options'),
        (['lora'], "variants=\\['lora'\\]: expected a mapping"),
    ],
)
def test_mistakes_in_variants(variants, message):
    with pytest.raises(UserError, match=message):
        make_sweep(settings(methods=list(variants), variants=variants))


def test_files_share_variants(tmp_path):
    (tmp_path / '_shared.py').write_text(
        f'variants = {VARIANTS}\nbackbone = "vit-mini"\nseeds = 3\n'
    )
    (tmp_path / 'mine.py').write_text(
        "_base_ = '_shared.py'\n"
        "methods = ['lora', 'gleam-l-k1', 'gleam-l-k3']\n"
        "datasets = ['mini-digits']\n"
        "variants = {'gleam-l-k3': {'method': 'gleam-l', 'top_k': 3}, 'lora': {'alpha': 2}}\n"
        'seeds = 1\n'
    )
    name, sweep = make_sweep(read_file(str(tmp_path / 'mine.py')))
    assert name == 'mine'
    assert sweep.seeds == (0,)
    assert sweep.variants == {
        'lora': Variant('lora', {'optim_wrapper.optimizer.lr': 5e-3, 'alpha': 2}),
        'gleam-l-k1': Variant('gleam-l', {'top_k': 1, 'optim_wrapper.optimizer.lr': 2e-3}),
        'gleam-l-k3': Variant('gleam-l', {'top_k': 3}),
    }


def test_a_selection_alone():
    grid = {'alpha': [1, 2]}
    _, sweep = make_sweep(settings(methods='linear,lora', grid=grid, final=False, seeds=2))
    assert [len(sweep.jobs(*pair)) for pair in sweep.pairs()] == [0, 2]
    configure.check(sweep)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(methods=None), '--methods: give it'),
        (dict(backbone='vit-x'), "unknown backbone 'vit-x'.*did you mean 'vit-"),
        (dict(datasets='vtab-cifer'), "unknown dataset 'vtab-cifer'.*vtab-cifar"),
        (dict(grid={'alhpa': [1]}), "none of gleam-t, lora has an option 'alhpa'"),
        (dict(grid={'alpha': 1}), r'grid\.alpha: expected a list'),
        (dict(grid={'alpha': [1, 1.0]}), r'grid\.alpha: a value is there twice'),
        (dict(grids={'gleam-k': {}}), "unknown method 'gleam-k'.*did you mean 'gleam-"),
        (dict(grids={'lora': {}}), r'grids\.lora: expected a dict of options, found {}'),
        (dict(grids={'lora': {'top_k': [1]}}), r"grids\.lora\.top_k: lora has no option 'top_k'"),
        (dict(grids={'lora': {'alpha': 1}}), r'grids\.lora\.alpha: expected a list'),
        (dict(grids=[]), r'grids=\[\]: expected a mapping'),
        (
            dict(grids={'*': {'optim_wrapper.optimizer.lr': [1]}, 'gleam-*': {'alpha': [1]}}),
            r'grids\.gleam-\*: all that it fits have the grid of another pattern, before it',
        ),
        (dict(grids={'lora': {1: [1]}}), r'grids\.lora={1: \[1\]}: expected a mapping, by names'),
        (dict(grids={1: {'alpha': [1]}}), 'grids={1: .*: expected a mapping, by names in quotes'),
        (dict(grid={1: [1]}), r'grid={1: \[1\]}: expected a mapping, by names in quotes'),
        (dict(variants={'lora': {1: 2}}), r'variants\.lora={1: 2}: expected a mapping, by names'),
        (
            dict(grid={'alpha': [1, 2], 'model.petl.alpha': [3]}),
            r'grid: alpha and model\.petl\.alpha are one and the same',
        ),
        (
            dict(grids={'lora': {'model.petl.alpha': [3], 'alpha': [1, 2]}}),
            r'grids\.lora: model\.petl\.alpha and alpha are one and the same',
        ),
        (
            dict(variants={'lora': {'alpha': 1, 'model.petl.alpha': 2}}),
            r'variants\.lora: alpha and model\.petl\.alpha are one and the same',
        ),
        (
            dict(grids={'gleam-t': {'alpha': [1]}}, grid={'top_k': [1]}),
            r"grid\.top_k: none of lora has an option 'top_k'",
        ),
        (dict(final=False), 'without a grid and a final phase there is nothing to train'),
        (dict(final='no', grid={'alpha': [1]}), "final='no': expected true or false"),
        *((dict(seeds=seeds), 'seeds=.*: expected a number of seeds') for seeds in SEEDS),
        (dict(name=5), 'name=5: expected a text'),
        (dict(methods=5), 'methods=5: expected a name or a list of names'),
        (dict(grid=['alpha']), r"grid=\['alpha'\]: expected a mapping"),
        (dict(options='x'), "options='x': expected a mapping of keys of the config"),
        (dict(options={'..': 1}), 'options=.*: expected a mapping of keys of the config'),
        (dict(heartbeat=0), 'heartbeat=0: expected a whole number'),
        (dict(trial_seeds=0), 'trial_seeds=0: expected a whole number'),
        (dict(trial_seeds=True), 'trial_seeds=True: expected a whole number'),
        (dict(trial_seeds=3, seeds=2), 'trial_seeds=3: a sweep of 2 seeds has no more'),
    ],
)
def test_mistakes(changes, message):
    with pytest.raises(UserError, match=message):
        make_sweep(settings(**changes))


@pytest.mark.parametrize('file', sorted((recipes.config_root() / 'sweeps').glob('[!_]*.py')))
def test_the_sweeps_that_ship(file):
    name, sweep = make_sweep(read_file(file.stem))
    assert name == file.stem
    assert all(sweep.jobs(*pair) for pair in sweep.pairs())
    schema.check_options(sweep)  # so that its study may be resumed by itself


def test_a_file_with_an_unknown_key(tmp_path):
    file = tmp_path / 'mine.py'
    file.write_text("backbone = 'vit-b'\ndataset = 'vtab'\n")
    with pytest.raises(UserError, match=r"mine\.py: unknown key 'dataset'; a sweep has: name,"):
        read_file(str(file))
    with pytest.raises(UserError, match='nowhere: no such file, and no sweep of') as error:
        read_file('nowhere')
    listed = str(error.value).rpartition('(')[2].rstrip(')').split(', ')
    assert 'vtab' in listed
    assert not any(stem.startswith('_') for stem in listed)


def test_a_path_of_no_file_is_no_sweep_that_ships():
    for spelling in ('digits', 'digits.py', 'configs/sweeps/digits.py', '/a/configs/digits.py'):
        assert read_file(spelling)['name'] == 'digits'
    for path in ('my/own/digits.py', '/no/such/folder/digits.db', './digits.py'):
        with pytest.raises(recipes.RecipeError, match='the one that ships is called digits, with'):
            read_file(path)
    with pytest.raises(recipes.RecipeError, match=r'^my/own/mine\.py: no such file$'):
        read_file('my/own/mine.py')
    with pytest.raises(UserError, match=r'^digits\.db: no such file, and no sweep of'):
        read_file('digits.db')


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
    _, misspelt = make_sweep(
        settings(
            backbone='tiny',
            datasets='vtab-kitti',
            grid={'optim_wrapper.optimizer.lrr': [1, 2]},
            options=OPTIONS,
        )
    )
    lrr = r"^select gleam-t .*lrr=1 .*optimizer\.lrr: .* \(did you mean 'lr'\?\)"
    with pytest.raises(UserError, match=lrr):
        configure.check(misspelt)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        configure.check(elsewhere)
    _, without = make_sweep(settings(backbone='tiny', datasets='folder', options={}))
    with pytest.raises(FileNotFoundError, match='data/folder/train is no folder'):
        configure.check(without)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(grid={'train_cfg.max_epochs': [15, 2]}), r'^select gleam-t .*max_epochs=2 '),
        (dict(grid={'optim_wrapper.optimizer.type': ['AdamW', 'AdmW']}), r'type=AdmW .*AdmW'),
        (dict(grid={'rank': [4, 0]}), r'^select gleam-t mini-digits rank=0 seed 0: GLEAM: rank=0'),
        (dict(variants={'lora': {'rank': 0}}), r'^final lora mini-digits seed 0: LoRA: rank=0'),
        (
            dict(options={'test_evaluator.topk': (2, 5)}),
            r'^final gleam-t .* the evaluation \(Accuracy\) gives no accuracy/top1',
        ),
        (
            dict(
                grid={'alpha': [1, 10]},
                options={
                    f'{split}_evaluator': dict(type='RegressionMetric', _delete_=True)
                    for split in ('val', 'test')
                },
            ),
            r'^select gleam-t .*alpha=1 .* the evaluation \(RegressionMetric\) gives no accuracy',
        ),
    ],
)
def test_what_would_make_one_point_or_method_fail_is_found_before(changes, message):
    _, sweep = make_sweep(settings(**changes))
    with pytest.raises(UserError, match=message):
        configure.check(sweep)


def test_a_method_that_does_not_fit_another_dataset_is_found_before(monkeypatch):
    composed = []
    make_config = training.make_config

    def watched(sweep, job):
        composed.append((job.method, job.dataset))
        return make_config(sweep, job)

    monkeypatch.setattr(training, 'make_config', watched)
    _, sweep = make_sweep(settings(datasets='mini-digits,mini-land'))
    configure.check(sweep)
    assert set(composed) == set(sweep.pairs())
