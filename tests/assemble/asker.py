# SPDX-License-Identifier: Apache-2.0
"""Stands in for the Python that ckptfs starts: importing the libraries takes seconds, and is done here once. Each
question is answered in a fork of this process, by the very program that ckptfs names.

    asker.py SOCKET PROGRAM    serves until its standard input ends; prints a line when it is ready
"""

import importlib.util
import os
import select
import signal
import socket
import sys
from pathlib import Path

CLIENT = """#!{python} -IS
import socket
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
socket.send_fds(server, [b"?"], [0, 1])
server.recv(1)
"""


def write_client(program, path):
    """A program that may be given to ckptfs as its Python."""
    program.write_text(CLIENT.format(python=sys.executable, path=str(path)))
    program.chmod(0o755)
    return program


def answer(connection, module):
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    module.main()


def serve(path, program):
    spec = importlib.util.spec_from_file_location("architecture", program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.set_environment()
    _, transformers = module.import_libraries()
    # The first class takes as long as the import of the library.
    assert transformers.LlamaForCausalLM
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    os.set_inheritable(0, False)
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            answer(connection, module)
        connection.close()


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
