import os

import mmengine.fileio
import pytest
from mmengine.fileio import get_file_backend
from mmengine.runner import save_checkpoint

from gleam_mm.fileio import (
    AtomicLocalBackend,
    claim,
    listing,
    remove_unfinished,
    write_bytes,
)


def test_writes_and_replaces(tmp_path):
    path = tmp_path / 'new' / 'folder' / 'x'
    for data in (b'first', b'second, and longer', b''):
        write_bytes(path, data)
        assert path.read_bytes() == data
    assert list(path.parent.iterdir()) == [path]


def test_old_file_is_whole_until_the_new_one_is(tmp_path, monkeypatch):
    path = tmp_path / 'x'
    write_bytes(path, b'old')
    seen = []

    def look(descriptor):
        seen.append(path.read_bytes())

    monkeypatch.setattr('os.fsync', look)
    write_bytes(path, b'new')
    assert seen[0] == b'old'


def test_unfinished_files_are_removed_and_others_are_not(tmp_path):
    (tmp_path / '.writing-123-epoch_1.pth').write_bytes(b'half')
    (tmp_path / 'epoch_1.pth').write_bytes(b'whole')
    assert [path.name for path in remove_unfinished(tmp_path)] == ['.writing-123-epoch_1.pth']
    assert [path.name for path in tmp_path.iterdir()] == ['epoch_1.pth']
    assert remove_unfinished(tmp_path / 'missing') == []


def test_mmengine_writes_local_files_this_way(tmp_path, monkeypatch):
    assert isinstance(get_file_backend(tmp_path / 'x'), AtomicLocalBackend)
    assert isinstance(get_file_backend(backend_args={'backend': 'local'}), AtomicLocalBackend)
    mmengine.fileio.put_text('text', tmp_path / 'text')
    assert (tmp_path / 'text').read_text() == 'text'

    def full(descriptor):
        raise OSError(28, 'No space left on device')

    save_checkpoint({'meta': 1}, str(tmp_path / 'x.pth'))
    whole = (tmp_path / 'x.pth').read_bytes()
    monkeypatch.setattr('os.fsync', full)
    with pytest.raises(OSError, match='No space'):
        save_checkpoint({'meta': 2}, str(tmp_path / 'x.pth'))
    assert (tmp_path / 'x.pth').read_bytes() == whole


def test_a_folder_is_listed_once_however_links_lead(tmp_path):
    root = tmp_path / 'root'
    for folder in ('a', 'b/c', '.d'):
        (root / folder).mkdir(parents=True)
        (root / folder / 'x.png').touch()
    (tmp_path / 'beside').mkdir()
    (tmp_path / 'beside' / 'y.png').touch()
    (root / 'b' / 'beside').symlink_to(tmp_path / 'beside')
    plain = set(listing(root, deep=True))
    assert plain == {
        *((folder, False) for folder in ('a', 'b', 'b/c', '.d', 'b/beside')),
        *((f'{folder}/x.png', True) for folder in ('a', 'b/c', '.d')),
        ('b/beside/y.png', True),
    }
    (root / 'a' / 'up').symlink_to('..')  # to the folder itself
    (root / 'b' / 'c' / 'top').symlink_to(tmp_path)  # to one that it lies in
    (root / 'self').symlink_to('self')
    (root / 'lost').symlink_to('nowhere')
    os.mkfifo(root / 'pipe')
    (tmp_path / 'beside' / 'back').symlink_to(root / 'b')  # by the way of another link
    assert set(listing(root, deep=True)) == plain
    assert set(listing(root)) == {('a', False), ('b', False), ('.d', False)}

    backend = get_file_backend(root)
    files = set(backend.list_dir_or_file(root, list_dir=False, recursive=True))
    assert files == {path for path, is_file in plain if is_file}
    (root / 'a' / '.hidden.png').touch()
    (root / 'a' / 'x.txt').touch()
    told = backend.list_dir_or_file(root, list_dir=False, suffix='.png', recursive=True)
    assert set(told) == files
    assert set(backend.list_dir_or_file(root, list_file=False)) == {'a', 'b', '.d'}


def test_a_claim_lasts_as_long_as_its_process(tmp_path):
    """Another one gets it only then; what was forked meanwhile does not hold on to it."""
    file = tmp_path / 'claimed'

    def child(number):
        return bool(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]))

    def elsewhere():
        process = os.fork()
        if process == 0:
            os._exit(claim(file) is not None)
        return child(process)

    ours = claim(file)
    assert not elsewhere()
    lives, dies = os.pipe()
    forked = os.fork()
    if forked == 0:
        os.close(dies)
        os.read(lives, 1)  # until the test is over
        os._exit(0)
    ours.close()
    assert elsewhere()
    os.close(dies)
    assert not child(forked)
