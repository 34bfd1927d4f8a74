"""What only a sandbox's owner does with the process itself."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, status

from truststram_lab.exceptions import PermissionDeniedError
from truststram_lab.server.deps import Platform

router = APIRouter(prefix="/api/v1/sandbox", tags=["sandbox"])


@router.post("/shutdown", status_code=status.HTTP_202_ACCEPTED)
async def shutdown(platform: Platform) -> dict[str, str]:
    """End the process; its state stays, and the next start goes on with it."""
    if platform.settings.environment != "sandbox":
        raise PermissionDeniedError(
            f"This platform serves {platform.settings.environment!r}; only a sandbox is shut down "
            "over HTTP."
        )
    # After this answer has left: the loop runs what is ready first.
    asyncio.get_running_loop().call_later(0.05, platform.lifecycle.stop)
    return {"status": "stopping"}
