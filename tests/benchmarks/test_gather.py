"""Studies as tools/sweep.py makes them, brought into the record."""

import json
from dataclasses import replace

import gather
import pytest
import records

from gleam_mm.errors import UserError
from gleam_mm.sweep.plan import Sweep, Variant
from gleam_mm.sweep.study import begin_study

SWEEP = Sweep(
    backbone='vit-mini',
    methods=('lora', 'lora-r1'),
    datasets=('mini-count',),
    seeds=(0, 1),
    options={'train_cfg.max_epochs': 4, 'optim_wrapper.type': 'AmpOptimWrapper'},
    variants={'lora-r1': Variant('lora', {'rank': 1, 'optim_wrapper.optimizer.lr': 0.5})},
)


@pytest.fixture
def storage(tmp_path):
    """A study of four trainings, the first of which is complete."""
    path = str(tmp_path / 'study.db')
    study = begin_study(path, 'mine', SWEEP)
    study.register()
    claim = study.claim({'host': 'here', 'pid': 1})
    claim.complete(61.25, parameters=32768, seconds=7.5)
    return path


def test_a_study_becomes_the_record(storage, tmp_path):
    (tmp_path / records.STUDIES).write_text('{"theirs": {"collected": "2020-02-02"}}')
    assert gather.collect([storage], 2, tmp_path) == [('mine', 1, 4)]
    rows = {(row.method, row.seed): row for row in records.read(tmp_path / records.CSV)}
    assert rows['lora', 0].accuracy == 61.25
    assert (rows['lora', 0].parameters, rows['lora', 0].seconds) == (32768, 7.5)
    assert rows['lora', 1].state == 'waiting'
    assert rows['lora-r1', 1].options == 'rank=1,optim_wrapper.optimizer.lr=0.5'
    notes = json.loads((tmp_path / records.STUDIES).read_text())
    assert notes['theirs'] == {'collected': '2020-02-02'}
    assert (notes['mine']['epochs'], notes['mine']['backbone']) == (4, 'vit-mini')
    assert notes['mine']['dtype'] == 'float16 autocast'
    assert notes['mine']['rates']['lora-r1'] == 0.5


def test_another_run_leaves_the_files_as_they_are(storage, tmp_path):
    gather.collect([storage], 2, tmp_path)
    recorded = records.read(tmp_path / records.CSV)
    both = [*recorded, *(records.Record(**{**vars(row), 'seed': 5}) for row in recorded)]
    records.write(tmp_path / records.CSV, both)
    before = (tmp_path / records.CSV).read_bytes()
    with pytest.raises(UserError, match='mine'):
        gather.collect([storage], 2, tmp_path)
    assert (tmp_path / records.CSV).read_bytes() == before


def test_of_two_studies_of_one_name_none_is_dropped_silently(storage, tmp_path):
    other = str(tmp_path / 'other.db')
    begin_study(other, 'mine', replace(SWEEP, seeds=(2, 3))).register()
    with pytest.raises(UserError, match=r'other\.db: a study mine was read from another storage'):
        gather.collect([storage, other], 2, tmp_path)
    assert not (tmp_path / records.CSV).exists()


def test_no_study_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='make bench'):
        gather.present()
