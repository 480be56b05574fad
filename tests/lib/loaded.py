# SPDX-License-Identifier: Apache-2.0
"""Runs Python programs in forks of one process that has loaded torch and transformers: loading them takes seconds, and
dozens of the tests' processes need them. A program runs as `python PROGRAM ARGUMENT...` would, in the directory, with
the environment and the output of who asks; what it does to files it does itself.

    loaded.py serve SOCKET                           until the process that started it is gone
    loaded.py run SOCKET RANKS PROGRAM|-mMODULE [ARGUMENT...]    runs it as so many ranks, and exits as it does

What CKPTFS_TEST_LOAD_TOO names, separated by spaces, is loaded besides.
Python tests call start(), which finds the socket in CKPTFS_TEST_LOADED, and starts a process of its own without it.
"""

import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback

HEADER = 8


# -- who asks ----------------------------------------------------------------------------------------------------------


class Run:
    """A program that runs in a fork, to be used as a subprocess.Popen is. It leads a process group."""

    def __init__(self, path, command, ranks, cwd, env, output):
        self.returncode = None
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(path)
        request = json.dumps({"command": command, "ranks": ranks, "cwd": str(cwd), "env": env}).encode()
        socket.send_fds(self.connection, [b"%*d" % (HEADER, len(request))], list(output))
        self.connection.sendall(request)
        self.answers = self.connection.makefile("r")
        self.pid = int(self.answers.readline())

    def poll(self, timeout=0):
        if self.returncode is None and select.select([self.connection], [], [], timeout)[0]:
            self.returncode = int(self.answers.readline())
        return self.returncode

    def wait(self, timeout=None):
        if self.poll(timeout) is None:
            raise subprocess.TimeoutExpired("a run in a fork", timeout)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def start(program, *arguments, ranks=1, cwd, env, output):
    """Starts a program, as so many ranks, with its standard output and error in that open file."""
    command = [str(program), *map(str, arguments)]
    if path := os.environ.get("CKPTFS_TEST_LOADED"):
        return Run(path, command, ranks, cwd, env, [output.fileno()] * 2)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)] if ranks > 1 else []
    streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
    return subprocess.Popen([sys.executable, "-B", *launcher, *command], cwd=cwd, env=env, process_group=0, **streams)


def run(path, ranks, command):
    """Waits for a program; an interruption is passed on to it. Returns what a shell would say of its end."""
    process = Run(path, command, ranks, os.getcwd(), dict(os.environ), [1, 2])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: process.send_signal(number))
    status = process.wait()
    return status if status >= 0 else 128 - status


# -- who answers -------------------------------------------------------------------------------------------------------


def load():
    """Imports that all have in common. Nothing here may start a thread, which no fork would have."""
    import torch.distributed.checkpoint  # noqa: F401
    import torch.distributed.launcher  # noqa: F401
    import transformers

    for name in ("AutoModelForCausalLM", "AutoTokenizer", "LlamaForCausalLM", "PreTrainedTokenizerFast", "Trainer"):
        assert getattr(transformers, name)
    import peft  # noqa: F401
    import pytest  # noqa: F401
    for name in os.environ.get("CKPTFS_TEST_LOAD_TOO", "").split():
        importlib.import_module(name)


def receive(connection):
    """A request, and the descriptors of its output."""
    header, descriptors, _, _ = socket.recv_fds(connection, HEADER, 2)
    with connection.makefile("rb", buffering=0) as stream:
        content, length = b"", int(header)
        while len(content) < length:
            content += stream.read(length - len(content))
    return json.loads(content), descriptors


def enter(request, descriptors):
    """Makes this fork the process that was asked for."""
    os.setpgid(0, 0)
    # A shell that starts the server behind itself has it ignore interruptions.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    for number, descriptor in zip((1, 2), descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)


def answer(connection):
    """In a fork: returns in a further one the request that it is to run; this one tells how that ended."""
    request, descriptors = receive(connection)
    pid = os.fork()
    if pid == 0:
        connection.close()
        enter(request, descriptors)
        return request
    for descriptor in descriptors:
        os.close(descriptor)
    connection.sendall(b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    try:
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    finally:
        os._exit(0)


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def serve(path):
    """Returns the request in each process that is to run one; None when nobody needs the server any more."""
    parent = os.getppid()
    load()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    while os.getppid() == parent:
        reap()
        if not select.select([listener], [], [], 1)[0]:
            continue
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return answer(connection)
        connection.close()
    return None


def run_program(command):
    program, *arguments = command
    sys.argv = [program, *arguments]
    if program.startswith("-m"):
        sys.path[0] = os.getcwd()
        runpy.run_module(program[2:], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(program)
        runpy.run_path(program, run_name="__main__")


def run_rank(command):
    """The launcher tells of one rank's end only, which is not always the first."""
    try:
        run_program(command)
    except Exception:
        print(f"rank {os.environ.get('RANK')}: {traceback.format_exc()}", file=sys.stderr, flush=True)
        raise


def run_ranks(command, ranks):
    """As torchrun --standalone does, but for the ranks being forks."""
    from torch.distributed.launcher import LaunchConfig, elastic_launch

    config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=ranks, run_id=str(os.getpid()), max_restarts=0,
                          rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork")
    elastic_launch(config, run_rank)(command)


def main(what, path, *command):
    if what == "run":
        sys.exit(run(path, int(command[0]), list(command[1:])))
    request = serve(path)
    if request is None:
        return
    if request["ranks"] > 1:
        run_ranks(request["command"], request["ranks"])
    else:
        run_program(request["command"])


if __name__ == "__main__":
    main(*sys.argv[1:])
