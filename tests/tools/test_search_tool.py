"""tools/search.py: from a trained supernet to a subnet that trains and tests."""

import json

import pytest
import torch

from gleam_mm.checkpoint import read_adapter
from gleam_mm.config import recipes
from gleam_mm.minivtab import MiniVTAB
from gleam_mm.registry import MODELS
from gleam_mm.search import subnet as searching

# A tiny population, for speed.
SETTINGS = ('--generations', 3, '--population', 4, '--parents', 2)


@pytest.fixture(scope='module')
def supernet_config(config):
    """The config of a tiny GLoRA supernet."""
    file = config.with_name('super.py')
    file.write_text(
        "_base_ = './tiny.py'\n"
        "model = dict(petl=dict(_delete_=True, type='GLoRA', rank=2, sites=['qkv', 'fc2']))\n"
    )
    return file


@pytest.fixture(scope='module')
def checkpoint(supernet_config, tmp_path_factory):
    """Weights of the supernet, random ones, so that subnets differ."""
    cfg = recipes.load(supernet_config)
    torch.manual_seed(0)
    model = MODELS.build({**cfg.model, 'head': {**cfg.model.head, 'num_classes': 10}})
    for parameter in model.petl.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    file = tmp_path_factory.mktemp('super') / 'super.pth'
    torch.save({'state_dict': model.state_dict()}, file)
    return file


@pytest.fixture(autouse=True)
def _never_test(monkeypatch):
    """The test split stays closed."""
    load = MiniVTAB.load_data_list

    def watched(dataset):
        assert dataset.split != 'test'
        return load(dataset)

    monkeypatch.setattr(MiniVTAB, 'load_data_list', watched)


@pytest.fixture
def evaluated(monkeypatch):
    """The subnets that were evaluated."""
    seen = []
    evaluate = searching.SubnetSearch.evaluate

    def watched(search, subnet):
        seen.append(subnet)
        return evaluate(search, subnet)

    monkeypatch.setattr(searching.SubnetSearch, 'evaluate', watched)
    return seen


def test_searches_and_writes_a_subnet_to_train(call, supernet_config, checkpoint, tmp_path):
    done = call('search.py', supernet_config, checkpoint, *SETTINGS, '--max-params', 1500)
    assert done.code == 0, done.err
    lines = [line for line in done.out.splitlines() if line.startswith('generation ')]
    assert [line[:14] for line in lines] == [f'generation {n}/3' for n in (1, 2, 3)]
    assert all(' parameters ' in line and 'ETA 0:0' in line for line in lines)

    folder = tmp_path / 'work_dirs' / 'super_search'
    subnet = json.loads((folder / 'subnet.json').read_text())
    cfg = recipes.load(folder / 'super_subnet.py')
    assert cfg.model.petl.to_dict()['subnet'] == subnet
    assert cfg.default_hooks.logger is not None
    assert cfg.test_dataloader.dataset.split == 'test'  # training it is what tests, once
    assert 'work_dir' not in cfg

    tensors, metadata = read_adapter(folder / 'subnet.safetensors')
    assert metadata['method']['subnet'] == subnet
    own = sum(tensor.numel() for name, tensor in tensors.items() if name.startswith('petl.'))
    assert done.row('parameters').startswith(f'{own:,} of ')
    assert own <= 1500
    best = float(done.row('best').split()[0])
    assert best == pytest.approx(metadata['metrics']['val']['accuracy/top1'], abs=0.005)


def test_the_found_subnet_tests_as_it_was_judged(call, supernet_config, checkpoint, tmp_path):
    call('search.py', supernet_config, checkpoint, *SETTINGS)
    folder = tmp_path / 'work_dirs' / 'super_search'
    _, metadata = read_adapter(folder / 'subnet.safetensors')
    options = ('--cfg-options', 'test_dataloader.dataset.split=val200')
    options += ('test_dataloader.dataset.indices=32',)
    config, adapter = folder / 'super_subnet.py', folder / 'subnet.safetensors'
    done = call('test.py', config, adapter, *options)
    assert done.code == 0, done.err
    score = metadata['metrics']['val']['accuracy/top1']
    assert float(done.row('accuracy/top1')) == pytest.approx(score, abs=1e-4)


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_a_killed_search_resumes_to_the_same_end(
    call, supernet_config, checkpoint, tmp_path, evaluated, monkeypatch
):
    whole = call('search.py', supernet_config, checkpoint, *SETTINGS, '--work-dir', 'whole')
    assert whole.code == 0, whole.err
    expected = list(evaluated)
    evaluated.clear()

    write = searching.write_scores

    def killed(file, candidates, *rest):
        if len(candidates) == 6:
            raise Killed  # the sixth evaluation is done, but not on disk
        write(file, candidates, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(searching, 'write_scores', killed)
        with pytest.raises(Killed):
            call('search.py', supernet_config, checkpoint, *SETTINGS, '--work-dir', 'parts')
    assert len(evaluated) == 6
    again = ('search.py', supernet_config, checkpoint, *SETTINGS, '--work-dir', 'parts')
    refused = call(*again)
    assert refused.code == 2
    assert 'there is a search here already; go on with --resume' in refused.err
    done = call(*again, '--resume')
    assert done.code == 0, done.err
    assert '5 candidates are judged already' in done.out
    assert evaluated == expected[:6] + expected[5:]
    parts, whole = tmp_path / 'parts', tmp_path / 'whole'
    for name in ('search.json', 'subnet.json', 'super_subnet.py'):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
    # The order of a safetensors file's metadata is arbitrary.
    tensors, metadata = read_adapter(parts / 'subnet.safetensors')
    expected, expected_metadata = read_adapter(whole / 'subnet.safetensors')
    assert metadata == expected_metadata
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors.items())

    for options, told in (
        (('--seed', 1), 'has seed=0, not 1'),
        (('--amp',), "has precision='single', not 'mixed'"),
    ):
        other = call(*again, '--resume', *options)
        assert other.code == 2
        assert told in other.err


def test_a_config_without_validation_gets_val200(call, supernet_config, checkpoint, evaluated):
    none = ('val_dataloader=None', 'val_cfg=None', 'val_evaluator=None')
    none += ('train_dataloader.dataset.split=train800val200', 'test_dataloader.dataset.indices=16')
    done = call(
        'search.py',
        supernet_config,
        checkpoint,
        '--generations',
        1,
        '--population',
        2,
        '--cfg-options',
        *none,
    )
    assert done.code == 0, done.err
    assert 'on 16 validation images' in done.out
    assert len(evaluated) == 2


def test_validation_folders_have_the_classes_of_the_training(supernet_config, tmp_path):
    for folder in ('train/cat', 'train/dog', 'val/dog'):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / 'a.png').touch()
    folders = {
        f'{split}_dataloader.dataset': dict(
            _delete_=True, type='CustomDataset', data_prefix=str(tmp_path / split)
        )
        for split in ('train', 'val')
    }
    cfg, _ = searching._evaluated(recipes.load(supernet_config, folders), 'super.pth')
    assert cfg.val_dataloader.dataset.classes == ['cat', 'dog']


def test_a_config_without_a_supernet_is_refused(call, config, checkpoint):
    done = call('search.py', config, checkpoint)
    assert done.code == 2
    assert 'model.petl is a GLEAM without anything to search' in done.err


def test_a_limit_below_every_subnet_is_refused(call, supernet_config, checkpoint):
    done = call('search.py', supernet_config, checkpoint, '--max-params', -1)
    assert done.code == 2
    assert 'max_params=-1: the smallest subnet has 0 parameters' in done.err


def test_runs_as_a_program(run, supernet_config, checkpoint, tmp_path):
    least = ('--generations', 1, '--population', 1)
    done = run('search.py', supernet_config, checkpoint, *least, cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.row('subnet') == 'work_dirs/super_search/subnet.json'


def test_the_test_split_is_closed_behind_wrappers_too(supernet_config, tmp_path):
    file = supernet_config.with_name('repeated.py')
    file.write_text(
        "_base_ = './super.py'\n"
        "train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=2, "
        "dataset=dict(type='MiniVTAB', task='digits', split='train800', pipeline=[])))\n"
        "val_dataloader = dict(dataset=dict(split='test'))\n"
    )
    cfg, splits = searching._evaluated(recipes.load(file), 'super.pth')
    assert splits == ('train800', 'val200')
    assert cfg.val_dataloader.dataset.split == 'val200'
