"""The service that serves, over a real database and real workers, without a server."""

from __future__ import annotations

import json

from served_estimators import signature_of
from served_models import BINARY, architecture_of, statistics_of, weights_of
from sqlalchemy import insert

from truststram_lab.exceptions import ModelNotFoundError, TrustStramException
from truststram_lab.schemas.registry import CreateModel, CreateVersion
from truststram_lab.schemas.serving import CreateDeployment, PredictResponse
from truststram_lab.server.metrics import Metrics
from truststram_lab.server.services.accounts import Principal
from truststram_lab.server.services.prediction_log import PredictionLog
from truststram_lab.server.services.registry import RegistryService
from truststram_lab.server.services.serving import ServingService
from truststram_lab.server.settings import Settings
from truststram_lab.server.stores.blobs import BlobStore
from truststram_lab.server.stores.engine import open_engine, writing
from truststram_lab.server.stores.ids import new_id, timestamp
from truststram_lab.server.stores.tables import metadata, organisations

__all__ = ["World"]


class World:
    """A database, a blob store, and two organisations."""

    def __init__(self, home):
        self.settings = Settings(home=home)
        self.engine = open_engine(self.settings.url)
        metadata.create_all(self.engine)
        self.blobs = BlobStore(self.settings.blobs)
        self.registry = RegistryService(self.engine, self.blobs, self.settings)
        self.log = PredictionLog(home, keep_days=30)
        self.serving = self._service()
        self.org, self.other = new_id("org"), new_id("org")
        with writing(self.engine) as connection:
            for i, organisation in enumerate((self.org, self.other)):
                connection.execute(
                    insert(organisations).values(
                        id=organisation, name=f"org {i}", created_at=timestamp()
                    )
                )

    def register(self, name, *, signature=BINARY, seed=0, organisation=None):
        organisation = organisation or self.org
        architecture = architecture_of(signature)
        with self.blobs.writer(organisation) as writer:
            writer.write(weights_of(architecture, seed))
            sha256 = writer.sha256
            self.registry.keep(organisation, writer, sha256)
        try:
            self.registry.get_model(organisation, name)
        except ModelNotFoundError:
            self.registry.create_model(organisation, CreateModel(name=name))
        return self.registry.create_version(
            organisation,
            name,
            CreateVersion(
                weights_sha256=sha256,
                architecture=architecture,
                signature=signature,
                statistics=statistics_of(signature),
            ),
        )

    def register_estimator(self, name, model):
        with self.blobs.writer(self.org) as writer:
            writer.write(model.to_bytes())
            sha256 = writer.sha256
            self.registry.keep(self.org, writer, sha256)
        self.registry.create_model(self.org, CreateModel(name=name, framework="scikit-learn"))
        version = CreateVersion(
            format="skops", weights_sha256=sha256, signature=signature_of(model)
        )
        return self.registry.create_version(self.org, name, version)

    def deploy(self, ref, organisation=None, **options):
        request = CreateDeployment(model=ref, **options)
        return self.serving.deploy(organisation or self.org, request)

    def predict(self, ref, data, organisation=None, **options):
        # Not dumped: a schema would make other values of some, and refuse others.
        body = json.dumps({"data": data, **options}).encode()
        answer = self.serving.answer(self.who(organisation), ref, body)
        if answer.status != 200:
            raise TrustStramException.from_problem(json.loads(answer.body), answer.status)
        return PredictResponse.model_validate_json(answer.body).predictions

    def who(self, organisation=None):
        """A member of the organisation."""
        organisation = organisation or self.org
        return Principal("usr_1", organisation, "org", "somebody", "member")

    def restart(self):
        """As after a restart of the platform."""
        self.serving.close()
        self.serving = self._service()

    def close(self):
        self.serving.close()
        self.log.close()
        self.engine.dispose()

    def _service(self):
        return ServingService(self.engine, self.blobs, self.settings, self.log, Metrics())
