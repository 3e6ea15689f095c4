"""The page, in a browser: a picture is dropped, and its classes are shown as text."""

import base64
import json
import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest
from running import CLASSES, running

from gleam_mm.serve.app import create_app

CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')

DROP = """
(async () => {
  const until = async (ready) => {
    for (let i = 0; i < 600 && !ready(); i++) await new Promise((done) => setTimeout(done, 50));
  };
  const task = document.getElementById('task');
  await until(() => task.options.length);
  task.value = TASK;
  const bytes = Uint8Array.from(atob(PICTURE), (char) => char.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], 'x.png', { type: 'image/png' }));
  const drop = document.getElementById('drop');
  drop.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true }));
  const told = document.getElementById('told');
  await until(() => told.textContent && told.textContent !== '...');
  const shown = document.getElementById('shown');
  await until(() => shown.naturalWidth);
  return JSON.stringify({
    tasks: [...task.options].map((option) => option.value),
    told: told.textContent,
    classes: [...document.querySelectorAll('#classes li')].map((line) => line.textContent),
    elements: document.querySelectorAll('#classes b').length,
    width: shown.naturalWidth,
  });
})()
"""


@contextmanager
def browser(folder):
    """Headless Chromium behind the pipes of its own protocol; gives what calls its methods."""
    (to_read, to_write), (from_read, from_write) = os.pipe(), os.pipe()

    def as_three_and_four():
        os.dup2(to_read, 3)
        os.dup2(from_write, 4)

    flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage']
    process = subprocess.Popen(
        [CHROMIUM, *flags, f'--user-data-dir={folder}', '--remote-debugging-pipe', 'about:blank'],
        preexec_fn=as_three_and_four,
        close_fds=False,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(from_write)
    calls, received = iter(range(1, 1000)), bytearray()

    def call(method, session=None, **params):
        number = next(calls)
        message = {'id': number, 'method': method, 'params': params}
        message |= {'sessionId': session} if session else {}
        os.write(to_write, json.dumps(message).encode() + b'\0')
        while True:
            while b'\0' not in received:
                chunk = os.read(from_read, 65536)
                assert chunk, 'Chromium has ended'
                received.extend(chunk)
            line, _, rest = bytes(received).partition(b'\0')
            received[:] = rest
            answer = json.loads(line)
            if answer.get('id') == number:
                assert 'error' not in answer, answer['error']
                return answer['result']

    try:
        yield call
    finally:
        process.terminate()
        process.wait()
        os.close(to_write)
        os.close(from_read)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason='there is no Chromium')
def test_a_picture_is_dropped(bank, settings, files_of_pictures, tmp_path):
    with running(create_app(bank, settings)) as address, browser(tmp_path / 'profile') as call:
        target = call('Target.createTarget', url=f'{address}/')['targetId']
        session = call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']

        def evaluate(script):
            options = dict(awaitPromise=True, returnByValue=True)
            found = call('Runtime.evaluate', session, expression=script, **options)
            assert 'exceptionDetails' not in found, found['exceptionDetails']
            return found['result']['value']

        def drop(task, picture):
            script = DROP.replace('TASK', json.dumps(task))
            text = base64.b64encode(picture).decode()
            return json.loads(evaluate(script.replace('PICTURE', json.dumps(text))))

        while evaluate('location.pathname + document.readyState') != '/complete':
            pass
        shown = drop('moles', files_of_pictures[0])
        assert shown['tasks'] == list(CLASSES)
        assert shown['told'] == 'moles'
        expected = bank(files_of_pictures[0], tasks='moles', top_k=5)
        assert shown['classes'] == [f'{best.label} {100 * best.score:.1f} %' for best in expected]
        assert shown['elements'] == 0  # <b>no</b> is the name of a class, and no markup
        assert shown['width'] == 32
        bank.remove('birds')
        shown = drop('birds', files_of_pictures[0])
        assert shown['told'].startswith("no task 'birds'") and not shown['classes']
