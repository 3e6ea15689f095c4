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


def test_mistakes(call):
    for arguments, told in (
        (['--export', 'mine.py'], '--export FILE NAME'),
        (['--export', 'mine.py', 'vit-b_gleam-x_vtab-pets'], "unknown method 'gleam-x'"),
    ):
        done = call('recipes.py', *arguments)
        assert done.code == 2
        assert told in done.err
