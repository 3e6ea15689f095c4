"""A server on loopback, in a thread of this process, and what it is asked."""

import io
import threading
import time
from contextlib import contextmanager

import uvicorn
from PIL import Image

TOKEN = 'a secret'
CLASSES = {'pets': ['cat', 'dog'], 'birds': ['robin', 'wren', 'tit'], 'moles': ['<b>no</b>', 'yes']}


@contextmanager
def running(app):
    """Serves an application at a free port; gives its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level='warning'))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 60
        while not server.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.01)
        assert server.started
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f'http://127.0.0.1:{port}'
    finally:
        server.should_exit = True
        thread.join()


def png(array, kind='PNG'):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()
