"""A real server in a thread, for any engine.

from serving import serving, wait_until              (tests/ is on the path)
"""

import socket
import threading
import time
from contextlib import contextmanager

from octavo.server.process import Server, listen


@contextmanager
def serving(engine, *, send_buffer=None, **options):
    """(a real server in a thread, its base URL); stopped in good order at the end.

    send_buffer  bytes that the kernel holds for a client which does not read; None: megabytes
    """
    server, listener = Server(engine, **options), listen("127.0.0.1", 0)
    if send_buffer:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        yield server, f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.end()
        thread.join()


def wait_until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)
