"""A site of a record-level run that is killed at every point of every round it is charged for.

``dying_private_site.py FEDERATION TABLE`` with the platform and the site's token in the
environment. Each life is a process of its own (forked when everything is loaded) and ends by
SIGKILL at one point; the last one lives to the end of the run. ``TRUSTSTRAM_HOME/sent.log`` gets a
line for every update that was made, stored or sent: ``what kind number digest``.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path

import pandas as pd
import torch  # noqa: F401 - loaded once, before the first fork

from truststram_lab.federated import site_end, site_run
from truststram_lab.federated.owner_ledger import OwnerLedger
from truststram_lab.federated.participation import machine as steps
from truststram_lab.federated.participation.worker import Worker
from truststram_lab.federated.unattended import take_part

#: Of one round, in the order in which they come.
POINTS = ("reserved", "drawn", "stored", "released", "arrived")
CHARGED = ("statistics", "training")
BOUNDS = {"dose": (0, 30), "age": (0, 120)}


def note(what: str, parcel: steps.Parcel) -> None:
    digest = hashlib.sha256(parcel.body).hexdigest()
    with Path(os.environ["TRUSTSTRAM_HOME"], "sent.log").open("a") as log:
        log.write(f"{what} {parcel.kind} {parcel.number} {digest}\n")


def arm(fatal: str | None) -> None:
    """Die at the point ``fatal``, the first time it is reached."""

    def reach(point: str) -> None:
        if point == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    for name, point in (("reserve", "reserved"), ("release", "released")):
        real = getattr(OwnerLedger, name)

        def charged(self, *given, real=real, point=point):
            real(self, *given)
            reach(point)

        setattr(OwnerLedger, name, charged)
    do = Worker._do

    def watched(self, step):
        parcel = getattr(step, "parcel", None)
        if parcel is None or parcel.kind not in CHARGED:
            return do(self, step)
        if isinstance(step, steps.Keep):
            note("made", parcel)
            reach("drawn")
        if isinstance(step, steps.Push):
            note("sent", parcel)
        done = do(self, step)
        if isinstance(step, steps.Keep):
            reach("stored")
        if isinstance(step, steps.Push):
            reach("arrived")
        return done

    Worker._do = watched


def live(federation: str, frame: pd.DataFrame, fatal: str | None) -> None:
    site_end._QUIET_S = site_run._POLL_S = 1.0
    arm(fatal)
    take_part(federation, frame, target="ill", bounds=BOUNDS, dp_limit=50.0)


def main() -> None:
    federation, frame = sys.argv[1], pd.read_csv(sys.argv[2])
    rounds = int(sys.argv[3])
    for fatal in [*POINTS * rounds, None]:
        child = os.fork()
        if child == 0:
            live(federation, frame, fatal)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        how = fatal if os.WIFSIGNALED(status) else f"ended {os.WEXITSTATUS(status)}"
        print(how, flush=True)


if __name__ == "__main__":
    main()
