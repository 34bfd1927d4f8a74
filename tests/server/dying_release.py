"""A platform that dies between making a round's noise durable and publishing the result.

``python dying_release.py HOME RUN`` advances the run in this process and ends it by SIGKILL at
that moment. The platform's own process is not running meanwhile.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from truststram_lab.server.services.aggregation import Advancer
from truststram_lab.server.services.closing import Closing
from truststram_lab.server.settings import Settings
from truststram_lab.server.stores.blobs import BlobStore
from truststram_lab.server.stores.engine import open_engine


def main(home: Path, run_id: str, database_url: str) -> None:
    settings = Settings(home=home, database_url=database_url)
    drawn = Closing._noise

    def noise_then_die(self: Closing, *arguments: object) -> str | None:
        found = drawn(self, *arguments)
        assert found is not None
        os.kill(os.getpid(), signal.SIGKILL)
        return found

    Closing._noise = noise_then_die
    engine, blobs = open_engine(settings.url), BlobStore(settings.blobs)
    Advancer(engine, blobs, settings, lambda *_: None).advance(run_id)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:4])
