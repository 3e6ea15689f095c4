"""tools/zoo.py: list, get and verify, as a user types them."""

from gleam_mm.inference import zoo

ONE = 'vit-mini_gleam-l_mini-digits'


def test_list(call):
    done = call('zoo.py', 'list')
    assert done.code == 0
    entry = zoo.entry(ONE)
    (line,) = [line for line in done.out.splitlines() if line.split()[0] == ONE]
    assert f'{entry.headline("test"):.2f}' in line
    assert '38,016' in line
    assert entry.backbone_fingerprint[:12] in line


def test_get_and_verify(call, tmp_path):
    done = call('zoo.py', 'get', ONE, '--out', 'mine')
    assert (done.code, done.err) == (0, '')
    assert {path.name for path in (tmp_path / 'mine').iterdir()} == {
        f'{ONE}.{suffix}' for suffix in ('safetensors', 'py', 'md')
    }
    done = call('zoo.py', 'verify', ONE)
    assert done.code == 0
    assert done.out.startswith(f'{ONE}: whole by its SHA-256')


def test_one_that_is_damaged_does_not_hide_others(call, monkeypatch):
    first, second = list(zoo.entries())[:2]

    def verify(name):
        if name == first:
            raise zoo.CheckpointError(f'{name}: damaged')
        return 'whole'

    monkeypatch.setattr(zoo, 'verify', verify)
    done = call('zoo.py', 'verify', first, second)
    assert done.code == 1
    assert done.out == f'{first}: damaged\n{second}: whole\n'


def test_a_name_that_is_not_there(call):
    for command in ('get', 'verify'):
        done = call('zoo.py', command, 'vit-mini_gleam-l_mini-digts')
        assert done.code == 2
        assert done.err.count('\n') == 1
        assert f"did you mean '{ONE}'" in done.err
