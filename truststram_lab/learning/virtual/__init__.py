"""Many virtual clients in one process: what each does in a round, for any torch module.

::

    task = Task(module, optimizer=Sgd(0.1, momentum=0.9), batch_size=16)
    trainer = choose(task, clients)              # measured; trainer.why says what was chosen
    works = [Work(place, seed=round_seed(seed, place, round)) for place in cohort]
    for trained in trainer.train(start, works):  # in the order given, in flat memory
        total += trained.samples * trained.delta["layers.0.weight"]
    found = trainer.evaluate(state, clients)

``Task`` is what all clients share: module, loss, optimizer, batch size, arithmetic type.
``Client`` is one client's rows. ``Work`` is one client's round: its seed, epochs or (for a
straggler) steps, FedProx's pull, Ditto's anchor and own start, SCAFFOLD's correction, the bound
on its delta, DP-SGD. Two trainers do it: ``loop``, one client after another, takes anything, and
``vectorized`` trains every client of a chunk at once. Both draw the same batches and the same
dropout masks from one generator per client and round, so they agree to rounding.

``ClientStates`` keeps arrays of every client (control variates, personal models) in a file.
Nothing is imported here but what needs no torch; torch is loaded on use.
"""

from __future__ import annotations

from .choice import choose
from .store import ClientStates
from .task import Adam, AdamW, Client, Evaluation, Sgd, Task, Trained, Trainer, Work

__all__ = [
    "Adam",
    "AdamW",
    "Client",
    "ClientStates",
    "Evaluation",
    "Sgd",
    "Task",
    "Trained",
    "Trainer",
    "Work",
    "choose",
]
