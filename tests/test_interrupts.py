"""Signals that end a run."""

import os
import signal
import sys
import time

import pytest

from gleam_mm import cli, interrupts


@pytest.fixture(autouse=True)
def _handlers():
    before = {number: signal.getsignal(number) for number in interrupts._SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ('number', 'code', 'told'),
    [
        (signal.SIGINT, 130, 'interrupted'),
        (signal.SIGTERM, 143, 'ended by SIGTERM'),
        (signal.SIGHUP, 129, 'ended by SIGHUP'),
    ],
)
def test_tools_end_in_one_line_and_with_the_status_of_the_signal(number, code, told, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: send(number))
    assert ended.value.code == code
    err = capsys.readouterr().err
    assert err.endswith(f': {told}\n') and err.count('\n') == 1


def test_a_second_signal_does_not_disturb_the_end(capsys):
    def main():
        try:
            send(signal.SIGINT)
        finally:
            done.append('tidied up')

    done = []
    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    send(signal.SIGINT)
    assert ended.value.code == 130 and done == ['tidied up']


def test_what_must_not_be_cut_in_two_is_finished():
    done = []
    with interrupts.raised():
        with pytest.raises(interrupts.Stopped) as stopped, interrupts.uninterrupted():
            with interrupts.uninterrupted():
                send(signal.SIGTERM)
                done.append('inner')
            done.append('outer')
        assert done == ['inner', 'outer']
        assert stopped.value.number is signal.SIGTERM


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    with interrupts.raised():
        send(signal.SIGHUP)


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGTERM, 15), (signal.SIGINT, 0)])
def test_a_forked_worker_dies_of_sigterm_and_leaves_ctrl_c_to_its_owner(number, status):
    with interrupts.raised():
        process = os.fork()
        if process == 0:
            send(number)
            os._exit(0)
        assert os.waitpid(process, 0)[1] == status


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_what_a_finalizer_would_swallow_comes_once_more(number, capfd):
    class Finalized:
        def __del__(self):
            send(number)

    with pytest.raises(interrupts.Stopped) as stopped, interrupts.raised():
        Finalized()
        time.sleep(10)
        pytest.fail('the signal is lost')
    assert stopped.value.number == number
    assert not capfd.readouterr().err


def test_what_else_a_finalizer_raises_is_told_as_ever(monkeypatch):
    class Broken:
        def __del__(self):
            raise ValueError('broken')

    told = []
    monkeypatch.setattr(sys, 'unraisablehook', lambda one: told.append(str(one.exc_value)))
    with interrupts.raised():
        Broken()
    assert told == ['broken']
