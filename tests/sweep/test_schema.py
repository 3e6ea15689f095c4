"""Databases that somebody else has written: refused in a line, and nothing of them is run."""

import json
import pickle
from pathlib import Path

import pytest
from rich.console import Console

from gleam_mm import errors
from gleam_mm.errors import UserError
from gleam_mm.sweep import Job, Sweep, commands, read_results, schema
from gleam_mm.sweep.plan import Variant
from gleam_mm.sweep.status import status
from gleam_mm.sweep.study import begin_study, open_study

SWEEP = Sweep(
    'vit-mini', ('lora',), ('vtab-kitti',), grid={'lora': {'alpha': [1, 10]}}, options={'x.y': 1}
)
TRAIN = 'train_dataloader.dataset'
DATASET = {'_delete_': True, 'type': 'BaseDataset', 'ann_file': 'http://evil/list.pkl'}
HOOK = {'type': 'subprocess.check_call', 'args': ['touch', 'ran']}


@pytest.fixture
def storage(tmp_path):
    return str(tmp_path / 'study.db')


@pytest.fixture
def study(storage):
    study = begin_study(storage, 'sweep', SWEEP)
    study.register()
    return study


def set_settings(study, **changes):
    settings = {**json.loads(json.dumps(SWEEP.to_dict())), **changes}
    study.storage.set_study_user_attr(study._id, 'gleam_sweep', settings)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(backbone=['vit-mini']), 'backbone is'),
        (dict(backbone='../vit-mini'), "backbone is '../vit-mini', expected a name"),
        (dict(methods='lora'), 'methods is'),
        (dict(methods=['../../lora']), 'methods is'),
        (dict(datasets=[1]), 'datasets is'),
        (dict(seeds=[]), 'seeds is'),
        (dict(seeds=[-1]), 'seeds is'),
        (dict(seeds=[True]), 'seeds is'),
        (dict(seeds=3), 'seeds is 3, expected a list of seeds'),
        (dict(trial_seeds=0), 'trial_seeds is 0'),
        (dict(grid={'lora': {'alpha': 1}}), 'grid is'),
        (dict(grid=[]), 'grid is'),
        (dict(options=None), 'options is None, expected a mapping'),
        (dict(variants={'a': {'method': 'lora', 'options': {}, 'run': 'x'}}), 'variants is'),
        (dict(final=1), 'final is 1, expected true or false'),
        (dict(heartbeat=0), 'heartbeat is 0'),
        (dict(heartbeat='x'), 'heartbeat is'),
        (dict(command='rm'), "'command' is no key of it"),
    ],
)
def test_settings_of_another_shape(study, storage, changes, message):
    set_settings(study, **changes)
    for read in (lambda: open_study(storage), lambda: read_results(storage)):
        with pytest.raises(UserError, match="study 'sweep': damaged settings: ") as told:
            read()
        assert message in str(told.value)
        assert '\n' not in str(told.value)


@pytest.mark.parametrize('settings', [None, [], 'text', 1, {}])
def test_settings_that_are_none(study, storage, settings):
    study.storage.set_study_user_attr(study._id, 'gleam_sweep', settings)
    with pytest.raises(UserError, match='damaged settings'):
        open_study(storage)


@pytest.mark.parametrize(
    ('note', 'value'),
    [
        ('worker', 'me'),
        ('worker', {'host': 'here'}),
        ('progress', 3),
        ('progress', [1, 'x']),
        ('seconds', 'long'),
        ('seconds', float('inf')),
        ('parameters', -1),
        ('parameters', 1.5),
        ('curve', {}),
        ('curve', [1]),
        ('curve', [{'epoch': 1}]),
        ('curve', [{'epoch': 1, 'loss': [], 'lr': 1}]),
        ('error', []),
        ('log', 7),
        ('backbone', 7),
        ('unheard', 'of'),
        ('job', None),
        ('job', {'phase': 'select'}),
        ('job', {**vars(Job('select', 'lora', 'vtab-kitti', 0, {'alpha': 1})), 'phase': 'test'}),
        ('job', vars(Job('final', 'lora', 'vtab-kitti', 0, {'custom_hooks': [HOOK]}))),
        ('job', vars(Job('final', 'lora', 'vtab-kitti', 0, {'alpha': 3}))),
        ('job', vars(Job('select', '../..', 'vtab-kitti', 0, {}))),
    ],
)
def test_trials_of_another_shape(study, storage, note, value):
    study.storage.set_trial_user_attr(1, note, value)
    with pytest.raises(UserError, match=r'study\.db: study sweep: trial 0: ') as told:
        read_results(storage)
    assert '\n' not in str(told.value)


def test_accuracies_that_are_none(study, storage):
    claim = study.claim({'host': 'here', 'pid': 1})
    claim.complete(float('inf'))
    with pytest.raises(UserError, match='its accuracy is inf'):
        read_results(storage)


@pytest.mark.parametrize(
    'settings',
    [
        dict(options={'custom_hooks': [HOOK]}),
        dict(options={'custom_imports': {'imports': ['evil']}}),
        dict(options={'custom_imports.imports': ['evil']}),
        dict(options={'optim_wrapper.optimizer.type': 'subprocess.Popen'}),
        dict(options={'runner_type': 'evil.Runner'}),
        dict(options={'optim_wrapper.constructor': 'evil'}),
        dict(options={'train_dataloader.collate_fn': {'type': ['os.system']}}),
        dict(grid={'lora': {'model.backbone': [{'init_cfg': {'a': [{'type': 'os.abc'}]}}]}}),
        dict(variants={'lora': Variant('lora', {'model.petl': HOOK})}),
        dict(variants={'lora': Variant('lora', {'type': 'TIMMBackbone'})}),
        dict(variants={'lora': Variant('lora', {'subnet': '../evil.json'})}),
        dict(options={'custom_hooks': [{'type': 'EMAHook'}]}),
        dict(options={'train_dataloader.dataset': DATASET}),
        dict(options={'train_dataloader.dataset.ann_file': 'evil.pkl'}),
        dict(options={'val_evaluator': [{'type': 'DumpResults', 'out_file_path': 'here.pkl'}]}),
        dict(options={'model.backbone.init_cfg.checkpoint': 'http://evil/weights.pth'}),
        dict(options={'model': {'backbone': {'frozen_stages': '/etc'}}}),
        dict(options={'load_from': 'evil.pth'}),
        dict(datasets=('evil.py',)),
        dict(backbone='evil.json'),
    ],
)
def test_options_that_would_import_or_open(storage, settings, tmp_path):
    """As the user's own they are fine; out of a database they are not."""
    sweep = Sweep(**{**vars(SWEEP), **settings})
    begin_study(storage, 'sweep', sweep)
    open_study(storage, known=sweep)
    open_study(storage, read_only=True)
    with pytest.raises(UserError, match='which is for your own files and flags alone'):
        open_study(storage)
    for run in (
        lambda: commands.COMMANDS['export'](Arguments(study=storage, folder=tmp_path / 'out')),
        lambda: commands.COMMANDS['estimate'](Arguments(sweep=storage, workers=1)),
        lambda: commands.COMMANDS['resume'](Arguments(study=storage)),
    ):
        with pytest.raises(errors.UserError, match='for your own files and flags alone'):
            run()
    assert not (tmp_path / 'out').exists()


class Arguments:
    name = None

    def __init__(self, **arguments):
        vars(self).update(arguments)


def test_a_pickle_that_a_study_names_stays_shut(place, storage):
    """MMPretrain's own dataset reads annotations through what opens pickles, too."""

    class Evil:
        def __reduce__(self):
            return Path.touch, (Path('ran'),)

    Path('evil.pkl').write_bytes(pickle.dumps(Evil()))
    dataset = {**DATASET, 'ann_file': 'evil.pkl', 'metainfo': {'split': 'train800'}}
    begin_study(storage, 'sweep', Sweep(**{**vars(SWEEP), 'options': {TRAIN: dataset}}))
    with pytest.raises(errors.UserError, match=f"{TRAIN}.type is 'BaseDataset', which is for"):
        commands.COMMANDS['estimate'](Arguments(sweep=storage, workers=1))
    assert not Path('ran').exists()


def test_what_a_study_may_say():
    options = {
        'optim_wrapper': {'type': 'AmpOptimWrapper', 'optimizer': {'type': 'SGD'}},
        'optim_wrapper.dtype': 'bfloat16',
        'optim_wrapper.clip_grad': None,
        'param_scheduler': [{'type': 'LinearLR'}],
        'train_dataloader.dataset.pipeline.1.scale': [32, 32],
        'test_cfg.fp16': True,
        'model.petl.type': 'LoRA',
        'model.petl.sites': ['qkv', 'fc1'],
    }
    variants = {'lora-a': Variant('lora', {'local_init': 'uniform', 'rank': 4})}
    schema.check_options(Sweep(**{**vars(SWEEP), 'options': options, 'variants': variants}))


def test_settings_that_changed_are_not_those_of_the_workers(study, storage):
    set_settings(study, seeds=[1])
    with pytest.raises(UserError, match='have changed meanwhile'):
        open_study(storage, known=SWEEP)


def test_what_the_terminal_shows_of_a_database(study):
    claim = study.claim({'host': 'here', 'pid': 1})
    claim.fail('[red]bad[/red]\x1b[2J\udc80', log='here\x07')
    console = Console(width=200, force_terminal=False)
    with console.capture() as shown:
        console.print(status(study.cells()))
    text = shown.get()
    assert '[red]bad[/red]\\x1b[2J\\udc80 (see here\\x07)' in text
    assert not {'\x1b', '\x07'} & set(text)


def test_folders_stay_inside():
    for value in ('../../../../evil', '/evil', '..', '.', 'a/../..', 'x' * 400, '\x00'):
        job = Job('select', 'lora', 'vtab-kitti', 0, {'alpha': value})
        parts = job.folder.split('/')
        assert len(parts) == 4
        assert not {'', '.', '..'} & set(parts)
        assert max(map(len, parts)) < 255
        other = Job('select', 'lora', 'vtab-kitti', 0, {'alpha': value + '-'})
        assert other.folder != job.folder
    plain = Job('select', 'gleam-l', 'vtab-kitti', 3, {'alpha': 0.1, 'top_k': 2})
    assert plain.folder == 'select/gleam-l_vtab-kitti/alpha=0.1,top_k=2/seed3' == plain.key


def test_a_name_that_is_no_folder_needs_one(storage):
    begin_study(storage, '../evil', SWEEP)
    with pytest.raises(UserError, match=r'\.\./evil: no name for a folder; give --work-dir'):
        commands.COMMANDS['resume'](
            Arguments(study=storage, retry_failed=False, gpus=None, workers=1, work_dir=None)
        )
