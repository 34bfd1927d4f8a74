"""A site that is killed at every point, one after another: ``dying_site.py URL TOKEN FOLDER``.

Each life is a process of its own (forked when everything is loaded). Between two deaths a life
without death brings one round to its receipt, so that every death comes in a fresh round. Prints
what each life did, one word a line: ``killed``, ``round`` or ``over``.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path

from tiny_runs import NoisySite

from truststram_lab.client import ParticipantClient
from truststram_lab.federated.participation import Outbox, Patience, Worker
from truststram_lab.transport import Target

KILLED, ROUND, OVER = "killed", "round", "over"


class Fuse:
    """Kills the process at its ``left``-th spark."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spark(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def arm(fuse: Fuse) -> None:
    """Sparks before every step and every change of the disk."""
    for name in ("fsync", "replace", "unlink"):
        real = getattr(os, name)

        def watched(*args, real=real, **kwargs):
            fuse.spark()
            return real(*args, **kwargs)

        setattr(os, name, watched)
    do = Worker._do

    def watched_do(self, step):
        fuse.spark()
        return do(self, step)

    Worker._do = watched_do


def live(url: str, token: str, folder: Path, fuse: int) -> str:
    """One life: to the receipt of a round (without a fuse), or to its death."""
    port = ParticipantClient(Target(url, token, 1), token)
    real_push = port.push

    def push(round_id, body):
        digest = hashlib.sha256(body).hexdigest()
        (folder / "bodies" / digest).write_bytes(body)
        with (folder / "pushes.log").open("a") as log:
            log.write(f"{round_id} {digest}\n")
        return real_push(round_id, body)

    port.push = push
    received = []
    if fuse:
        arm(Fuse(fuse))
    worker = Worker(
        port,
        Outbox(folder / "outbox"),
        NoisySite(),
        patience=Patience(poll_s=1.0),
        is_over=lambda fault: bool(received) or not port.assignments(0),
    )
    settle = worker._outbox.settle

    def settled(parcel):
        settle(parcel)
        received.append(parcel)
        if not fuse:
            worker._stop.set()

    worker._outbox.settle = settled
    worker.run()
    return ROUND if received else OVER


def main() -> None:
    url, token, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    (folder / "bodies").mkdir(parents=True)
    fuse, said = 1, KILLED
    while said == KILLED:  # until a life is longer than its fuse
        said = fork(url, token, folder, fuse)
        print(said, flush=True)
        fuse += 1
        print(fork(url, token, folder, 0), flush=True)
    while said != OVER:
        said = fork(url, token, folder, 0)
        print(said, flush=True)


def fork(url: str, token: str, folder: Path, fuse: int) -> str:
    """A life in a process of its own."""
    child = os.fork()
    if child == 0:
        os._exit(10 if live(url, token, folder, fuse) == ROUND else 11)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return KILLED
    return {10: ROUND, 11: OVER}[os.WEXITSTATUS(status)]


if __name__ == "__main__":
    main()
