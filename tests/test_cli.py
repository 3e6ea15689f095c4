"""How tools tell mistakes: in one line, with 2; anything else keeps its traceback."""

import os
import subprocess
import sys

import pytest

from gleam_mm import cli, errors


def fail(error):
    with errors.setup():
        raise error


@pytest.mark.parametrize(
    ('error', 'told'),
    [
        (ValueError('rank=0'), 'rank=0'),
        (KeyError('petl'), 'petl'),
        (FileNotFoundError('x.pth: no such file'), 'x.pth: no such file'),
        (AssertionError(), 'AssertionError'),
        (
            RuntimeError('Caught OSError in DataLoader worker process 0.\nTrace\nOSError: lost\n'),
            'lost',
        ),
        (RuntimeError('in loading:\n\tsize mismatch\n'), 'in loading: size mismatch'),
        (ValueError('\x1b[31mname\x07 \udc80 [red]'), r'\x1b[31mname\x07 \udc80 [red]'),
    ],
)
def test_a_mistake_is_told_in_one_line(capsys, error, told):
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: fail(error))
    assert stop.value.code == 2
    line = capsys.readouterr().err
    assert line.endswith(f': error: {told}\n')
    assert line.count('\n') == 1


def test_a_process_of_several_says_which_it_is(capsys, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setenv('RANK', '1')
    with pytest.raises(SystemExit):
        cli.run(lambda: fail(ValueError('no')))
    assert 'error (process 1): no' in capsys.readouterr().err


def test_the_traceback_can_be_asked_for(monkeypatch):
    monkeypatch.setenv('GLEAM_TRACEBACK', '1')
    with pytest.raises(errors.UserError) as error:
        cli.run(lambda: fail(ValueError('no')))
    assert isinstance(error.value.__cause__, ValueError)


def test_what_is_no_mistake_of_the_user_is_not_hidden():
    def broken():
        raise ValueError('a bug')

    with pytest.raises(ValueError, match='a bug'):
        cli.run(broken)
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda: fail(ZeroDivisionError()))


def test_interrupting_exits_with_130():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        cli.run(interrupted)
    assert stop.value.code == 130


def test_the_exit_status_is_what_the_function_returns():
    cli.run(lambda: None)
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: 1)
    assert stop.value.code == 1


def test_a_reader_that_goes_away_is_no_error():
    """As in ``tool | head``, where the end of the pipe is closed before all is written."""
    reader, writer = os.pipe()
    os.close(reader)
    program = 'from gleam_mm import cli; cli.run(lambda: print("x"))'
    done = subprocess.run(
        [sys.executable, '-c', program], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, '')


def test_a_name_that_the_terminal_cannot_show():
    program = "from gleam_mm import cli; cli.run(lambda: print('caf\\xe9 \\u65e5\\u672c.png'))"
    done = subprocess.run(
        [sys.executable, '-c', program],
        env={**os.environ, 'PYTHONIOENCODING': 'cp1252'},
        capture_output=True,
    )
    told = 'caf\xe9 \\u65e5\\u672c.png\n'.encode('cp1252')
    assert (done.returncode, done.stdout, done.stderr) == (0, told, b'')


def test_a_number_of_processes_that_is_none(capsys, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', 'abc')
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: fail(ValueError('no')))
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith(': error: no\n')
