"""Processes that live through many tests and form groups of any size, as those that torchrun starts: importing torch
again for each test would take most of the time."""

import gc
import os
import socket
import sys
from functools import partial
from multiprocessing import get_context

from attengait.system.workers import call, unpack

_context = get_context("spawn")


class Gang:
    """`run(n, function, *arguments)` calls a function of a module in n processes of one group: what each returns."""

    def __init__(self, size):
        self._connections, self._processes = [], []
        for _ in range(size):
            ours, theirs = _context.Pipe()
            process = _context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)

    def answers(self, world_size, function, *arguments):
        """(result, None) or (None, exception) of each process."""
        port = _free_port()
        for rank, connection in enumerate(self._connections[:world_size]):
            connection.send((rank, world_size, port, function, arguments))
        return [connection.recv() for connection in self._connections[:world_size]]

    def run(self, world_size, function, *arguments):
        """The result of each process; raises the exception of the first that has one."""
        return [unpack(answer) for answer in self.answers(world_size, function, *arguments)]

    def close(self):
        """The processes end with their pipes."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join(60)


def _free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def _apply(function, arguments):
    return function(*arguments)


def _serve(connection):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    while True:
        try:
            rank, world_size, port, function, arguments = connection.recv()
        except (EOFError, ConnectionError):
            sys.exit()
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in (numbers | place).items()})
        answer = call(partial(_apply, function), arguments)
        if dist.is_initialized():  # after an error, whose frames hold what must be freed before
            _, error = answer
            error.__traceback__ = error.__context__ = error.__cause__ = None
            gc.collect()
            dist.destroy_process_group()
        connection.send(answer)
