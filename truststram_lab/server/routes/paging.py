"""The query parameters that all listings share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

__all__ = ["Cursor", "Limit", "Search"]

Limit = Annotated[int, Query(ge=1, le=200, description="items a page")]
Cursor = Annotated[str | None, Query(max_length=500, description="the former page's next_cursor")]
Search = Annotated[str | None, Query(max_length=200, description="part of the name")]
