"""Recipes by name: composing, real files, names that do not exist, exporting."""

from pathlib import Path

import pytest
from mmengine.config import Config

from gleam_mm.config import recipes
from gleam_mm.config.recipes import RecipeError

CONFIGS = recipes.config_root()


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def own_dataset(root, name, classes):
    file = root / 'configs' / '_base_' / 'datasets' / f'{name}.py'
    file.parent.mkdir(parents=True)
    folder = CONFIGS / '_base_' / 'datasets' / 'folder.py'
    file.write_text(f'_base_ = {str(folder)!r}\ndata_preprocessor = dict(num_classes={classes})\n')


def test_a_name_composes_the_three_families(elsewhere):
    cfg = recipes.load('swin-b_lora_vtab-dmlab')
    assert cfg.model.type == 'PETLClassifier'
    assert cfg.model.backbone.type == 'SwinTransformer'
    assert cfg.model.petl.type == 'LoRA'
    assert cfg.train_dataloader.dataset.task == 'dmlab'
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert cfg.default_scope == 'gleam_mm'
    assert cfg.filename == 'swin-b_lora_vtab-dmlab.py'


def test_a_path_that_nobody_wrote_is_composed_from_its_stem(elsewhere):
    cfg = recipes.load('configs/gleam/vit-b_gleam-t_vtab-dtd.py')
    assert cfg.model.petl.rank == 4
    assert cfg.data_preprocessor.num_classes == 47


@pytest.mark.parametrize('folder', ['my/own/', './', '../', '/no/such/folder/', '~/'])
def test_a_path_of_no_file_is_no_name(elsewhere, folder):
    for name in ('vit-b_gleam-t_vtab-dtd', 'vit-b_gleam-l_vtab-cifar'):  # the second has a file
        for ending in ('', '.py'):
            with pytest.raises(RecipeError, match='no such file') as error:
                recipes.load(f'{folder}{name}{ending}')
            assert str(error.value).startswith(f'{folder}{name}{ending}: ')
            assert f'is called {name}, without a folder' in str(error.value)
    with pytest.raises(RecipeError) as error:
        recipes.load(f'{folder}mine.py')
    assert str(error.value) == f'{folder}mine.py: no such file'  # and none that ships


def test_an_existing_file_wins(elsewhere):
    file = elsewhere / 'vit-b_gleam-t_vtab-dtd.py'
    file.write_text("model = dict(type='Mine')\n")
    assert recipes.load('vit-b_gleam-t_vtab-dtd.py').model.type == 'Mine'


def test_a_file_in_the_configs_folder_wins_over_composing(elsewhere):
    name = 'vit-b_gleam-l_vtab-cifar'
    for spelling in (name, f'{name}.py', f'configs/gleam/{name}.py'):
        assert Path(recipes.load(spelling).filename) == CONFIGS / 'gleam' / f'{name}.py'


def test_composing_equals_the_worked_example(elsewhere):
    name = 'swin-b_gleam-l_vtab-cifar'
    assert (
        recipes.compose(name).to_dict()
        == Config.fromfile(CONFIGS / 'gleam' / f'{name}.py').to_dict()
    )


def test_options_override(elsewhere):
    cfg = recipes.load('vit-b_gleam-l_vtab-cifar', {'model.petl.rank': 7})
    assert cfg.model.petl.rank == 7


def test_options_stay_as_they_are_and_count_in_their_order(elsewhere):
    name, rate = 'vit-mini_lora_mini-digits', 'optim_wrapper.optimizer.lr'
    whole = {'optim_wrapper': dict(optimizer=dict(_delete_=True, type='SGD', lr=0.1))}
    first, second = (recipes.load(name, whole).optim_wrapper for _ in range(2))
    assert first == second
    assert first.optimizer == dict(type='SGD', lr=0.1)
    assert recipes.load(name, {**whole, rate: 0.3}).optim_wrapper.optimizer.lr == 0.3
    assert recipes.load(name, whole).optim_wrapper == first
    # What is said of the whole leaves what was said of a part before.
    clipped = {rate: 0.3, 'optim_wrapper': dict(clip_grad=None)}
    assert recipes.load(name, clipped).optim_wrapper.optimizer.lr == 0.3
    assert recipes.load(name, {rate: 0.3, **whole}).optim_wrapper.optimizer.lr == 0.1


def test_families_of_the_current_directory_join(elsewhere):
    own_dataset(elsewhere, 'my_flowers', 12)
    assert 'my_flowers' in recipes.families()['datasets']
    assert 'my_flowers' in recipes.listing()
    # The underscore in the name does not confuse the splitting.
    assert recipes.parse('vit-b_slora_my_flowers') == ('vit-b', 'slora', 'my_flowers')
    assert recipes.load('vit-b_slora_my_flowers').data_preprocessor.num_classes == 12


def test_a_schedule_with_the_name_of_the_dataset_or_its_family(elsewhere):
    assert recipes.load('vit-mini_linear_mini-digits').train_cfg.max_epochs == 15
    own_dataset(elsewhere, 'quick', 3)
    assert recipes.load('vit-b_lora_quick').train_cfg.max_epochs == 100
    schedule = elsewhere / 'configs' / '_base_' / 'schedules' / 'quick.py'
    schedule.parent.mkdir()
    schedule.write_text('train_cfg = dict(by_epoch=True, max_epochs=7)\n')
    assert recipes.load('vit-b_lora_quick').train_cfg.max_epochs == 7
    dataset = elsewhere / 'configs' / '_base_' / 'datasets' / 'quick.py'
    dataset.rename(dataset.with_name('quick-one.py'))
    assert recipes.load('vit-b_lora_quick-one').train_cfg.max_epochs == 7


def test_another_configs_folder(elsewhere, monkeypatch):
    monkeypatch.setenv('GLEAM_CONFIGS', str(elsewhere / 'nothing'))
    with pytest.raises(RecipeError, match=r'nothing.*GLEAM_CONFIGS'):
        recipes.load('vit-b_gleam-l_vtab-cifar')
    (elsewhere / 'mine' / '_base_' / 'methods').mkdir(parents=True)
    (elsewhere / 'mine' / '_base_' / 'methods' / 'magic.py').write_text("method = dict(type='M')\n")
    monkeypatch.setenv('GLEAM_CONFIGS', 'mine')
    assert list(recipes.families()['methods']) == ['magic']


@pytest.mark.parametrize(
    ('name', 'told'),
    [
        ('vit-b_gleam_vtab-cifar', ["unknown method 'gleam'", 'gleam-l', 'gleam-mm recipes']),
        ('vit-c_gleam-l_vtab-cifar', ["unknown backbone 'vit-c'", 'vit-b']),
        ('vit-b_gleam-l_vtab-ciffar', ["unknown dataset 'vtab-ciffar'", 'vtab-cifar']),
        ('vit-c_gleam_vtab-ciffar', ['unknown backbone', 'unknown method', 'unknown dataset']),
        ('vit-b', ["unknown recipe 'vit-b'", '<backbone>_<method>_<dataset>']),
        ('configs/x/vit-b_glem-l_vtab-cifar.py', ['configs/x/', 'does not exist', 'gleam-l']),
        ('vit-b_gleam-l__vtab', ["unknown dataset '_vtab'"]),
    ],
)
def test_unknown_names_get_the_closest_matches(elsewhere, name, told):
    with pytest.raises(RecipeError) as error:
        recipes.load(name)
    for part in told:
        assert part in str(error.value)


def test_several_files_of_one_name_need_a_path(elsewhere, monkeypatch):
    for folder in ('_base_', 'one', 'two'):
        (elsewhere / 'c' / folder).mkdir(parents=True)
    for folder in ('one', 'two'):
        (elsewhere / 'c' / folder / 'same.py').write_text("model = dict(type='M')\n")
    monkeypatch.setenv('GLEAM_CONFIGS', 'c')
    with pytest.raises(RecipeError, match='several config files'):
        recipes.load('same')
    assert recipes.load('c/one/same.py').model.type == 'M'


@pytest.mark.parametrize(
    ('text', 'told'),
    [
        ('model = dict(', 'SyntaxError'),
        ('_base_ = "missing.py"\n', 'missing.py'),
        ('x = 1\n', "has no 'model'"),
        (
            f'_base_ = {str(CONFIGS / "_base_/methods/lora.py")!r}\nmodel = dict(type="M")\n',
            'petl=',
        ),
    ],
)
def test_broken_configs_name_the_file(elsewhere, text, told):
    (elsewhere / 'broken.py').write_text(text)
    with pytest.raises(RecipeError, match=r'broken.py') as error:
        recipes.load('broken.py')
    assert told in str(error.value)


def test_an_option_for_the_preset_is_refused(elsewhere):
    with pytest.raises(RecipeError, match=r'model\.petl\.rank'):
        recipes.load('vit-b_gleam-l_vtab-cifar', {'method.rank': 3})


def test_an_exported_recipe_loads_to_the_same_config(elsewhere):
    name = 'timm-swin-b_fact_vtab-smallnorb-azi'
    file = recipes.export(name, 'deep/down/mine.py')
    assert file == elsewhere / 'deep' / 'down' / 'mine.py'
    assert list(file.parent.iterdir()) == [file]
    assert len(file.read_text().splitlines()) <= 12
    assert recipes.load(file).to_dict() == recipes.load(name).to_dict()


def test_exports_inside_a_checkout_have_relative_bases(tmp_path, monkeypatch):
    for family, key in (('backbones', 'model'), ('methods', 'method'), ('datasets', 'data')):
        folder = tmp_path / 'old' / 'configs' / '_base_' / family
        folder.mkdir(parents=True)
        (folder / 'x.py').write_text(f"{key} = dict(type='X')\n")
    (tmp_path / 'old' / 'configs' / '_base_' / 'schedules').mkdir()
    (tmp_path / 'old' / 'configs' / '_base_' / 'schedules' / 'petl_100e.py').write_text('a = 1\n')
    (tmp_path / 'old' / 'configs' / '_base_' / 'default_runtime.py').write_text('b = 1\n')
    monkeypatch.setenv('GLEAM_CONFIGS', str(tmp_path / 'old' / 'configs'))
    recipes.export('x_x_x', tmp_path / 'old' / 'configs' / 'mine' / 'a.py')
    (tmp_path / 'old').rename(tmp_path / 'new')
    cfg = Config.fromfile(tmp_path / 'new' / 'configs' / 'mine' / 'a.py')
    assert cfg.model.petl.type == 'X'


def test_export_overwrites_nothing(elsewhere):
    (elsewhere / 'mine.py').write_text('precious = 1\n')
    with pytest.raises(FileExistsError, match='exists already'):
        recipes.export('vit-b_lora_vtab-cifar', 'mine.py')
    with pytest.raises(RecipeError, match=r'\.py'):
        recipes.export('vit-b_lora_vtab-cifar', 'mine.txt')
    assert (elsewhere / 'mine.py').read_text() == 'precious = 1\n'


def test_export_follows_no_link(elsewhere):
    (elsewhere / 'mine.py').symlink_to(elsewhere / 'outside' / 'theirs.py')  # leads nowhere
    with pytest.raises(FileExistsError, match='exists already'):
        recipes.export('vit-b_lora_vtab-cifar', 'mine.py')
    assert (elsewhere / 'mine.py').is_symlink()
    assert not (elsewhere / 'outside').exists()


def test_another_method_by_an_option(elsewhere):
    options = {'model.petl.rank': 3, 'method': 'lora'}
    (elsewhere / 'own.py').write_text(
        f'_base_ = {str(CONFIGS / "gleam" / "vit-b_gleam-l_vtab-cifar.py")!r}\n'
        'model = dict(petl=dict(alpha=5.0))\n'
    )
    preset = recipes.load('vit-b_lora_vtab-cifar').model.petl.to_dict()
    cfg = recipes.load('own.py', options)
    assert cfg.model.petl.to_dict() == {**preset, 'rank': 3}
    assert recipes.name_of(cfg) == 'own-lora'  # so that their work directories differ
    assert recipes.name_of(recipes.load('own.py')) == 'own'
    assert recipes.name_of(recipes.load('vit-b_slora_vtab-dtd', options)) == 'vit-b_lora_vtab-dtd'
    with pytest.raises(RecipeError, match=r'method=lroa: unknown method .*lora'):
        recipes.load('own.py', {'method': 'lroa'})


def test_a_strategy_by_an_option(elsewhere):
    plain = recipes.load('vit-b_lora_vtab-cifar')
    cfg = recipes.load('vit-b_lora_vtab-cifar', {'strategy': 'fsdp', 'model.petl.rank': 3})
    assert cfg.pop('model_wrapper_cfg') == dict(type='ShardedDataParallel')
    plain.model.petl.rank = 3
    assert cfg.to_dict() == plain.to_dict()
    with pytest.raises(
        RecipeError, match=r'strategy=zero3: unknown strategy; there is deepspeed, fsdp\.'
    ):
        recipes.load('vit-b_lora_vtab-cifar', {'strategy': 'zero3'})


@pytest.mark.parametrize(
    ('key', 'near'),
    [
        ('train_cgf', 'train_cfg'),
        ('modle', 'model'),
        ('optim_wraper', 'optim_wrapper'),
        ('defualt_hooks', 'default_hooks'),
        ('custom_hook', 'custom_hooks'),
        ('vall_cfg', 'val_cfg'),
        ('load_form', 'load_from'),
        ('worc_dir', 'work_dir'),
    ],
)
def test_misspelt_keys_are_named(elsewhere, key, near):
    (elsewhere / 'own.py').write_text(f"model = dict(type='M')\n{key} = dict(max_epochs=3)\n")
    with pytest.raises(RecipeError, match=rf"own\.py: unknown key '{key}': did you mean '{near}'"):
        recipes.load('own.py')
    told = rf"option '{key}\.x\.y': the config has no '{key}' \(did you mean '{near}'\?\)"
    with pytest.raises(RecipeError, match=told):
        recipes.load('vit-b_lora_vtab-cifar', {f'{key}.x.y': 3})


def test_names_of_ones_own_are_no_mistakes(elsewhere):
    names = ('train_pipeline', 'test_pipeline', 'train_loader', 'rank', 'bgr', 'cfg', 'test_set')
    text = "model = dict(type='M')\n" + ''.join(f'{name} = 1\n' for name in names)
    (elsewhere / 'own.py').write_text(text)
    assert recipes.load('own.py', {'rank': 2}).rank == 2


@pytest.mark.parametrize('sites', [{'qkv'}, [{'qkv', 'proj'}], frozenset()])
def test_sets_are_refused(elsewhere, sites):
    with pytest.raises(RecipeError, match=r'model\.petl\.sites.* is a set, .*: write a list'):
        recipes.load('vit-b_lora_vtab-cifar', {'model.petl.sites': sites})
