"""The emulator of Google Cloud Storage, as it has to be for many objects.

By itself it writes a list of all that it keeps for each change, keeps what is deleted, and breaks off when it sends an
object whose metadata no header can hold as they are. This runs in the emulator's own environment, which has nothing
of ours.
"""

from __future__ import annotations

import signal
import sys
import threading

from gcp_storage_emulator.server import Response, create_server  # type: ignore[import-not-found]
from gcp_storage_emulator.storage import Storage  # type: ignore[import-not-found]

write_down = Storage._write_config_to_file
writing = threading.Lock()


def write(storage: Storage) -> None:
    """Write down a list of all that is kept, which others may change meanwhile."""
    with writing:
        while True:
            try:
                write_down(storage)
            except RuntimeError:
                continue
            return


Storage._write_config_to_file = lambda storage: None
Storage._bucket_soft_delete_retention_seconds = lambda storage, bucket: 0
set_header = Response.__setitem__
Response.__setitem__ = lambda response, name, value: set_header(response, name, value.encode().decode("latin-1"))

host, port, directory = sys.argv[1:]
server = create_server(host, int(port), data_dir=directory)
# No thread gets it, so that it waits for us however early it comes.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
server.start()
signal.sigwait({signal.SIGTERM})
# What is still being answered on open connections is written down before the answer, as the emulator does by itself.
Storage._write_config_to_file = write
server.stop()
write(server._storage)
