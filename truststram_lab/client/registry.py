"""Models, their versions, and blobs by content."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import Field

from truststram_lab.exceptions import ConflictError, InvalidInputError, PlatformError
from truststram_lab.schemas.base import Page, Schema
from truststram_lab.schemas.registry import (
    CreateModel,
    CreateVersion,
    Model,
    ModelVersion,
    RegisterArtifact,
    SetAlias,
)
from truststram_lab.schemas.serving import Deployment, ScalingConfig
from truststram_lab.schemas.tables import Signature
from truststram_lab.transport import Call, Resource, call
from truststram_lab.transport.calls import D, Steps, steps

from .deploying import default_name, described, version_of
from .refs import ModelRef, model_ref, reference, segment
from .serving import deployment_call
from .uploading import uploaded

__all__ = ["Blobs", "Models"]

_TRANSFER_S = 120.0
#: the platform reads an uploaded estimator
_READING_S = 150.0


class Models(Resource[D]):
    """``client.models``"""

    @call
    def list(
        self, *, limit: int | None = None, cursor: str | None = None, search: str | None = None
    ) -> Call[Page[Model]]:
        """One page of models, newest first; ``cursor`` is the former page's ``next_cursor``."""
        query = {"limit": limit, "cursor": cursor, "search": search}
        return Call("GET", "/api/v1/models", Page[Model], query=query)

    @call
    def get(self, model: ModelRef) -> Call[Model]:
        """A model by name or id; raises ModelNotFoundError with the nearest names.

        Where ``model`` names a version or an alias, that must exist, too.
        """
        return Call("GET", _ref_path(model), Model)

    @call
    def create(
        self,
        name: str,
        *,
        description: str = "",
        framework: str = "pytorch",
        type: str | None = None,
        version: str | None = None,
    ) -> Call[Model]:
        """A new line of versions.

        Args:
            framework: what made it, for people.
            type: ``classification`` or ``regression``; what is uploaded must be of it.
            version: the label of the first version that is uploaded, such as ``2.1.0``.

        Raises:
            ConflictError: the name is taken.
            InvalidInputError: a value is none of these.
        """
        given = {"type": type, "version": version}
        body = CreateModel.model_validate(
            {
                "name": name,
                "description": description,
                "framework": framework,
                **{key: value for key, value in given.items() if value is not None},
            }
        )
        return Call("POST", "/api/v1/models", Model, json=body)

    @steps
    def ensure(
        self,
        name: str,
        *,
        framework: str = "pytorch",
        type: str | None = None,
        description: str = "",
    ) -> Steps[Model]:
        """The model of that name, made if there is none; safe where several make it at once.

        Raises:
            ConflictError: there is one, of another framework or type; names both.
        """
        asked = {"framework": framework, "type": type}
        given = {key: value for key, value in asked.items() if value is not None}
        body = CreateModel.model_validate({"name": name, "description": description, **given})
        try:
            made: Model = yield Call("POST", "/api/v1/models", Model, json=body)
            return made
        except ConflictError:
            found: Model = yield Call("GET", _ref_path(name), Model)
        for key, value in given.items():
            own = getattr(found, key)
            if own != value:
                raise ConflictError(
                    f"Model {name!r} is there with {key} {own!r}, not {value!r}; use that one, or "
                    "another name."
                )
        return found

    @call
    def delete(self, model: ModelRef) -> Call[None]:
        """Remove a model with all its versions and aliases; its name may be taken again.

        Raises:
            ModelNotFoundError: there is no such model.
            ConflictError: it is deployed, or a run trains it now; says which.
        """
        return Call("DELETE", _path(model), None)

    @steps
    def upload_artifacts(
        self, model_id: ModelRef, file: BinaryIO | str | Path, *, label: str | None = None
    ) -> Steps[ModelVersion]:
        """Register a trained scikit-learn estimator, from its file, as the next version.

        The file is sent in parts and gone on with where an upload broke off. Pickle and joblib
        files are read by the platform in a process of its own with a list of what may be in
        them, and kept as skops writes them: no code is stored, and none is executed.

        Args:
            model_id: name or id of the model.
            file: opened for reading bytes, or a path; of ``MLModel.save``, skops, pickle or joblib.
            label: of the version; None is the one that the model was created with, or counts on.

        Raises:
            ModelNotFoundError: no such model.
            InvalidInputError: the file is refused; the sentence names what is in it.
        """
        sha256: str = yield from uploaded(file)
        body = RegisterArtifact(sha256=sha256, label=label)
        made: ModelVersion = yield Call(
            "POST", f"{_path(model_id)}/artifacts", ModelVersion, json=body, timeout_s=_READING_S
        )
        return made

    @call
    def versions(
        self, model: ModelRef, *, limit: int | None = None, cursor: str | None = None
    ) -> Call[Page[ModelVersion]]:
        """The versions of a model, newest first."""
        query = {"limit": limit, "cursor": cursor}
        return Call("GET", f"{_ref_path(model)}/versions", Page[ModelVersion], query=query)

    @call
    def version(self, model: ModelRef, version: int | str | None = None) -> Call[ModelVersion]:
        """One version of a model.

        Args:
            model: "icu:3" and "icu@champion" name their version themselves.
            version: its number or label, ``latest``, ``deployed`` or ``@alias``; None is the
                one that ``model`` names, or else the latest.

        Raises:
            ModelNotFoundError: no such model, version or alias; has the nearest.
            InvalidInputError: ``model`` names a version and ``version`` another.
        """
        return Call("GET", _version_path(model, version), ModelVersion)

    @call
    def create_version(self, model: ModelRef, version: CreateVersion) -> Call[ModelVersion]:
        """Register a version whose weights were uploaded with ``client.blobs.put``."""
        return Call("POST", f"{_path(model)}/versions", ModelVersion, json=version)

    @steps
    def deploy(
        self,
        model_id: ModelRef | None = None,
        *,
        model: Any = None,
        explainer: Any = None,
        environment: str | None = None,
        scaling_config: ScalingConfig | Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> Steps[Deployment]:
        """Serve a registered model, or a trained one that is registered with it.

        Args:
            model_id: as in ``client.deployments.create``.
            model: a trained ``MLModel`` or scikit-learn estimator instead; each call registers
                another version under ``name``.
            explainer: of ``model``; must explain the very model. It stays in Python: deployed
                estimators are explained by the caller.
            environment: whose endpoint; None is the platform's own.
            scaling_config: as in ``client.deployments.create``.
            name: of the registered model; None is made of its algorithm and target.

        Raises:
            TypeError: neither or both of ``model_id`` and ``model``.
            ModelNotFoundError: no such model or version.
            InvalidInputError: the model cannot be deployed, or the explainer is another's.
            InsufficientResourcesError: the minimum of workers does not fit.
        """
        if (model_id is None) == (model is None):
            raise TypeError(
                "deploy() takes a registered model or a trained one: "
                "deploy(model_id='fraud-detection') or deploy(model=model)"
            )
        if model_id is None:
            sha256, signature = yield from _uploaded(model, explainer)
            model_id = name or default_name(model, signature)
            with contextlib.suppress(ConflictError):  # another version of it
                yield Call("POST", "/api/v1/models", Model, json=_sklearn_model(model_id))
            version = version_of(sha256, signature)
            registered: ModelVersion = yield Call(
                "POST", f"{_path(model_id)}/versions", ModelVersion, json=version
            )
            model_id = registered
        elif explainer is not None or name is not None:
            raise TypeError("explainer= and name= go with model=, not with model_id=")
        deployed: Deployment = yield deployment_call(model_id, environment, scaling_config)
        return deployed

    @call
    def set_alias(
        self, model: ModelRef, alias: str, version: int | str | None = None
    ) -> Call[Model]:
        """Let ``model@alias`` name a version from now on, whatever it named before.

        What was deployed by the alias stays on the version that it named then.

        Args:
            model: the model; "icu:3" names the version, too.
            alias: small letters, digits, dots, dashes and underscores; no version's label.
            version: as in :meth:`version`.

        Raises:
            ModelNotFoundError: no such model or version.
            InvalidInputError: ``alias`` cannot be one; suggests one.
            ConflictError: ``alias`` is the label of a version.
        """
        body = SetAlias(version=_which(model, version))
        return Call("PUT", _alias_path(model, alias), Model, json=body)

    @call
    def delete_alias(self, model: ModelRef, alias: str) -> Call[Model]:
        """Take an alias away; raises ModelNotFoundError with the nearest if there is none."""
        return Call("DELETE", _alias_path(model, alias), Model)

    @call
    def download(self, model: ModelRef, version: int | str | None = None) -> Call[bytes]:
        """The weights of a version (see :meth:`version`), a safetensors file."""
        path = f"{_version_path(model, version)}/download"
        return Call("GET", path, bytes, timeout_s=_TRANSFER_S)


def _sklearn_model(name: str) -> CreateModel:
    return CreateModel(name=name, framework="scikit-learn")


def _uploaded(model: Any, explainer: Any) -> Steps[tuple[str, Signature]]:
    """The stored file of an estimator, and its signature."""
    if explainer is not None and getattr(explainer, "model", model) is not model:
        raise InvalidInputError(
            "The explainer explains another model than the one that is deployed; make it with "
            "model=model.",
            field="explainer",
        )
    content, signature = described(model)
    sha256: str = yield blob_call(content)
    return sha256, signature


class Blobs(Resource[D]):
    """``client.blobs``: files by the sha256 of their content."""

    @call
    def put(self, content: bytes) -> Call[str]:
        """Upload ``content``; returns its sha256 in hexadecimal."""
        return blob_call(content)

    @steps
    def upload(self, file: BinaryIO | str | Path) -> Steps[str]:
        """Upload a file of any size in flat memory; returns its sha256.

        It is sent in parts; where an upload broke off, the same call goes on.
        """
        sha256: str = yield from uploaded(file)
        return sha256

    @call
    def get(self, sha256: str) -> Call[bytes]:
        """The file with that sha256; raises PlatformError if other bytes arrive."""

        def verified(content: bytes) -> bytes:
            if hashlib.sha256(content).hexdigest() != sha256:
                raise PlatformError(
                    f"The platform sent other bytes than those of blob {sha256[:12]}; "
                    "its storage is damaged."
                )
            return content

        path = f"/api/v1/blobs/{segment(sha256, 'a blob')}"
        return Call("GET", path, bytes, timeout_s=_TRANSFER_S, unwrap=verified)


def blob_call(content: bytes) -> Call[str]:
    """Uploads ``content``; its value is the sha256."""
    sha256 = hashlib.sha256(content).hexdigest()
    return Call(
        "PUT",
        f"/api/v1/blobs/{sha256}",
        _Stored,
        content=content,
        timeout_s=_TRANSFER_S,
        # The address is the content: a second upload changes nothing.
        idempotency_key="",
        repeatable=True,
        unwrap=lambda stored: str(stored.sha256),
    )


class _Stored(Schema):
    sha256: str
    size_bytes: int = Field(ge=0)


def _ref_path(model: ModelRef) -> str:
    """With the version or alias that it names, so that the platform checks that it exists."""
    return f"/api/v1/models/{segment(model_ref(model), 'a model')}"


def _path(model: ModelRef) -> str:
    return f"/api/v1/models/{segment(reference(model).name, 'a model')}"


def _alias_path(model: ModelRef, alias: str) -> str:
    return f"{_path(model)}/aliases/{segment(alias, 'an alias')}"


def _version_path(model: ModelRef, version: int | str | None) -> str:
    return f"{_path(model)}/versions/{segment(_which(model, version), 'a version')}"


def _which(model: ModelRef, version: int | str | None) -> str:
    """How the version is named inside its model."""
    asked = reference(model)
    named = asked.version if asked.alias is None else f"@{asked.alias}"
    if version is None:
        return named or "latest"
    if named is not None and named != str(version):
        raise InvalidInputError(
            f"{str(asked)!r} names a version and version={version!r} another; leave one out.",
            field="version",
            choices=[named],
        )
    return str(version)
