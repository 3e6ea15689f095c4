"""tools/recipes.py: listing and exporting."""

from gleam_mm.config import recipes


def test_it_lists_every_name(call):
    done = call('recipes.py')
    assert done.code == 0
    words = done.out.split()
    for family, files in recipes.families().items():
        assert family in words
        assert set(files) <= set(words)
    assert 'vit-b_gleam-l_vtab-cifar' in words


def test_it_exports(call, tmp_path):
    done = call('recipes.py', '--export', 'mine.py', 'vit-b_gleam-b_vtab-pets')
    assert done.code == 0
    assert str(tmp_path / 'mine.py') in done.out
    assert recipes.load('mine.py').model.petl.rank == 8


def test_it_maps_the_methods(call):
    done = call('recipes.py', '--methods', '--sort', 'parameters')
    assert done.code == 0
    *lines, blank, _, note = done.out.splitlines()
    assert lines[0].split() == [
        'preset',
        'parameters',
        'VTAB-1K',
        'merges',
        '+GFLOPs',
        'family',
        'equation',
    ]
    assert lines[2].split()[:2] == ['linear', '0']
    assert not blank and 'on the test split, and print the best' in note
    assert lines[-1].startswith('full ') and '85,798,656' in lines[-1]


def test_mistakes(call):
    for arguments, told in (
        (['--sort', 'cost'], 'give --methods as well'),
        (['--methods', '--sort', 'beauty'], 'invalid choice'),
        (['--export', 'mine.py'], '--export FILE NAME'),
        (['--export', 'mine.py', 'vit-b_gleam-x_vtab-pets'], "unknown method 'gleam-x'"),
    ):
        done = call('recipes.py', *arguments)
        assert done.code == 2
        assert told in done.err
