"""The zoo that ships: its index, copies of it, and what may have happened to its files."""

import json
import shutil

import pytest
from huggingface_hub import ModelCard
from mmengine.config import Config

import gleam_mm
from gleam_mm.checkpoint import CheckpointError, read_adapter, save_adapter
from gleam_mm.config import recipes
from gleam_mm.engine.validate import validate
from gleam_mm.errors import UserError
from gleam_mm.inference import zoo
from gleam_mm.minivtab import MINI_TASKS, MiniVTAB
from gleam_mm.models import params

NAMES = list(zoo.entries())
ONE = 'vit-mini_gleam-l_mini-digits'


@pytest.fixture
def folder(tmp_path):
    """A copy of one adapter of the zoo, with an index of its own."""
    copy = tmp_path / 'zoo'
    copy.mkdir()
    for suffix in ('py', 'safetensors'):
        shutil.copy(zoo.FOLDER / f'{ONE}.{suffix}', copy)
    index(copy)
    return copy


def index(folder):
    (folder / zoo.INDEX).write_text(zoo.index_of(zoo.scan(folder)))


def test_the_index_is_what_the_files_say():
    assert (zoo.FOLDER / zoo.INDEX).read_text() == zoo.index_of(zoo.scan())
    assert {path.stem for path in zoo.FOLDER.glob('*.py')} == {*NAMES}
    assert sum(path.stat().st_size for path in zoo.FOLDER.iterdir()) < 10e6


@pytest.mark.parametrize('name', NAMES)
def test_counts_are_those_of_the_config(name):
    entry = zoo.entry(name)
    counted = params.count_config(recipes.load(zoo.FOLDER / entry.config))
    assert entry.parameters == counted.trainable
    classes = MINI_TASKS[entry.dataset.removeprefix('mini-')].num_classes
    assert entry.head == 128 * classes + classes


def test_a_copy_needs_nothing_else(tmp_path, monkeypatch):
    adapter, config, card = zoo.get(ONE, tmp_path / 'mine')
    monkeypatch.chdir(tmp_path)
    assert adapter.read_bytes() == (zoo.FOLDER / adapter.name).read_bytes()
    assert Config.fromfile(config).model.petl.type == 'GLEAM'
    entry = zoo.entry(ONE)
    told = ModelCard.load(card)
    (result,) = [r for r in told.data.eval_results if r.metric_type == zoo.HEADLINE]
    assert result.metric_value == pytest.approx(entry.headline('test'))
    assert f"gleam_mm.Predictor('{adapter.name}')" in told.text
    assert entry.backbone_fingerprint in told.text

    dataset = MiniVTAB('digits', 'test')
    samples = [dataset.get_data_info(i) for i in range(100)]
    predicted = gleam_mm.Predictor(adapter, device='cpu')([s['img'] for s in samples])
    classes = dataset.metainfo['classes']
    right = sum(p.label == classes[s['gt_label']] for p, s in zip(predicted, samples, strict=True))
    assert right == pytest.approx(entry.headline('test'), abs=8)


def test_what_is_whole_is_told(folder):
    fingerprint = read_adapter(folder / f'{ONE}.safetensors')[1]['backbone_fingerprint']
    assert zoo.verify(ONE, folder).endswith(fingerprint[:12])
    assert zoo.path(ONE, folder) == folder / f'{ONE}.safetensors'


@pytest.mark.parametrize('suffix', ['safetensors', 'py'])
def test_a_flipped_bit(folder, tmp_path, suffix):
    file = folder / f'{ONE}.{suffix}'
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    for use in (zoo.verify, lambda name, at: zoo.get(name, tmp_path / 'out', at)):
        with pytest.raises(CheckpointError, match=rf'{ONE}\.{suffix}: damaged or replaced'):
            use(ONE, folder)
    assert not (tmp_path / 'out').exists()


def test_other_frozen_weights(folder):
    file = folder / f'{ONE}.safetensors'
    tensors, metadata = read_adapter(file)
    save_adapter(file, tensors, {**metadata, 'backbone_fingerprint': '0' * 64})
    index(folder)
    with pytest.raises(CheckpointError, match='was trained on a backbone with the fingerprint 000'):
        zoo.verify(ONE, folder)


def test_an_index_that_says_more_than_the_files(folder):
    document = json.loads((folder / zoo.INDEX).read_text())
    document['adapters'][0]['metrics']['test'][zoo.HEADLINE] = 100.0
    (folder / zoo.INDEX).write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match='not what the files say: metrics'):
        zoo.verify(ONE, folder)


def test_unknown_names_have_a_nearest_one():
    with pytest.raises(UserError, match=f"did you mean '{ONE}'"):
        zoo.entry('vit-mini_gleam-l_mini-digit')


def test_an_adapter_without_its_config_is_not_listed(folder):
    (folder / f'{ONE}.py').unlink()
    with pytest.raises(CheckpointError, match=rf'its config, {ONE}\.py, is not beside it'):
        zoo.scan(folder)


def changed(**values):
    def change(document):
        document['adapters'][0].update(values)

    return change


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda d: d.update(schema=2), 'schema is 2'),
        (lambda d: d.update(more=1), "'more' is no key of it"),
        (lambda d: d.update(adapters={}), 'adapters is {}, expected a list'),
        (lambda d: d['adapters'].append(d['adapters'][0]), 'is there twice'),
        (lambda d: d['adapters'][0].pop('size'), 'adapters.0: size is missing'),
        (changed(url='https://elsewhere'), "adapters.0: 'url' is no key of it"),
        (changed(name='../../secret'), "adapters.0: name is '../../secret', expected a name"),
        (changed(sha256='0' * 63), r'adapters.0: sha256 is .0+., expected a SHA-256'),
        (changed(size=True), 'adapters.0: size is True, expected a number'),
        (changed(metrics={'test': {}}), 'adapters.0: metrics is .*, expected val and test'),
    ],
)
def test_the_schema_is_closed(folder, change, message):
    document = json.loads((folder / zoo.INDEX).read_text())
    change(document)
    (folder / zoo.INDEX).write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=message):
        zoo.entries(folder)


def test_no_index(tmp_path):
    with pytest.raises(CheckpointError, match=r'index\.json is missing'):
        zoo.entries(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_accuracies_are_measured_again(name):
    entry = zoo.entry(name)
    cfg = recipes.load(zoo.FOLDER / entry.config)
    (measured,) = validate(cfg, [zoo.path(name)])
    assert measured[zoo.HEADLINE] == pytest.approx(entry.headline('val'), abs=0.51)
