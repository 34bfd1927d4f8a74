"""Checked by mypy, never run: what each client's calls are typed as."""

from typing import assert_type

from truststram_lab.client import AsyncTrustStramClient, ParticipantClient, TrustStramClient
from truststram_lab.schemas.accounts import Identity
from truststram_lab.schemas.base import Event, Page
from truststram_lab.schemas.federation import Assignment, Invitation, Run, UpdateReceipt
from truststram_lab.schemas.registry import Model, ModelVersion
from truststram_lab.schemas.serving import Prediction


def sync(client: TrustStramClient, site: ParticipantClient) -> None:
    assert_type(client.accounts.whoami(), Identity)
    assert_type(client.models.get("a"), Model)
    assert_type(client.models.list(limit=3), Page[Model])
    assert_type(client.models.version("a", 2), ModelVersion)
    assert_type(client.models.version("a@b"), ModelVersion)
    assert_type(client.models.set_alias("a", "b", 2), Model)
    assert_type(client.models.set_alias(client.models.version("a"), "b"), Model)
    assert_type(client.models.delete_alias("a", "b"), Model)
    assert_type(client.models.download("a"), bytes)
    assert_type(client.blobs.put(b""), str)
    assert_type(client.inference.predict("a", {"x": 1}), Prediction)
    assert_type(client.inference.batch_predict("a", [{"x": 1}]), list[Prediction])
    assert_type(client.federations.invite("a", ["s"]), list[Invitation])
    assert_type(client.runs.get("a-1"), Run)
    assert_type(next(client.events.stream("org")), Event)
    assert_type(site.assignments(), list[Assignment])
    assert_type(site.model("r"), bytes)
    assert_type(site.push("r", b""), UpdateReceipt)


async def asynchronous(client: AsyncTrustStramClient) -> None:
    assert_type(await client.models.get("a"), Model)
    assert_type(await client.models.set_alias("a", "b", "latest"), Model)
    assert_type(await client.inference.batch_predict("a", [{"x": 1}]), list[Prediction])
    async for event in client.events.stream("org", after=3):
        assert_type(event, Event)


def wrong(client: TrustStramClient) -> None:
    """Calls that must be refused: where one is not, mypy calls its ignore unused, an error."""
    client.models.get()  # type: ignore[call-arg]  # a name is needed
    client.models.get("a", unknown=1)  # type: ignore[call-arg]  # no such option
    client.models.set_alias("a", 5)  # type: ignore[arg-type]  # an alias is a word
    client.inference.predict(5, {})  # type: ignore[arg-type]  # not a model
