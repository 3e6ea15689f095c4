"""``gleam-mm serve`` as a process: it answers, and ends when it is told to."""

import re
import signal
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from adapters import build, pictures, write
from PIL import Image

COMMAND = [sys.executable, '-m', 'gleam_mm_cli', 'serve']


@pytest.fixture
def bank(tmp_path):
    write(build(dict(type='LoRA', rank=2)), tmp_path / 'pets.safetensors', ['cat', 'dog', 'hen'])
    (tmp_path / 'bank.yaml').write_text('adapters: {pets: pets.safetensors}\ndevice: cpu\n')
    return tmp_path / 'bank.yaml'


@pytest.mark.slow
def test_a_server_from_its_start_to_its_end(bank, tmp_path):
    log = tmp_path / 'log'
    with log.open('w') as file:
        process = subprocess.Popen([*COMMAND, str(bank), '--port', '0'], stderr=file)
    try:
        until = time.monotonic() + 120
        while not (found := re.search(r'http://127\.0\.0\.1:[1-9]\d+', log.read_text())):
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        Image.fromarray(pictures(1)[0]).save(tmp_path / 'x.png')
        request = Request(
            f'{found[0]}/predict/pets',
            (tmp_path / 'x.png').read_bytes(),
            {'Content-Type': 'image/png'},
        )
        with urlopen(request) as answer:
            assert b'"label"' in answer.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0  # it has done what it was there for
        with pytest.raises(URLError):
            urlopen(request)
    finally:
        process.kill()
        process.wait()
