"""A pickle or joblib file, read with a list of what may be in it.

A pickle is a program: whoever loads it runs it. This reader resolves nothing but scikit-learn's
own estimators, their trees and numpy's arrays, so that a program that calls anything else ends at
its first call. Read files of strangers in a process of their own all the same.
"""

from __future__ import annotations

import importlib
import io
import pickle
from typing import Any

from ..exceptions import InvalidInputError
from .storage import TRUSTED

__all__ = ["read_pickle"]

#: What numpy, scipy and Python write of arrays and plain objects: rebuilds them, calls nothing.
_PLAIN = frozenset(
    {
        "_codecs.encode",  # of the bytes of old arrays
        "collections.OrderedDict",
        "collections.defaultdict",
        "copyreg._reconstructor",
        "builtins.object",
        "builtins.set",
        "builtins.frozenset",
        "builtins.slice",
        "builtins.list",
        "builtins.dict",
        "builtins.int",
        "builtins.float",
        "builtins.bool",
        "builtins.bytes",
        "builtins.str",
        "builtins.tuple",
        "numpy.ndarray",
        "numpy.dtype",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy._core.numeric._frombuffer",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        # An estimator keeps the generator that it drew from.
        "numpy.random._pickle.__bit_generator_ctor",
        "numpy.random._pickle.__generator_ctor",
        "numpy.random._pickle.__randomstate_ctor",
        "numpy.random._mt19937.MT19937",
        "numpy.random._pcg64.PCG64",
        "numpy.random.bit_generator.SeedSequence",
        "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
        "scipy.sparse._csr.csr_matrix",
        "scipy.sparse._csc.csc_matrix",
        "scipy.sparse._csr.csr_array",
        "scipy.sparse._csc.csc_array",
        "joblib.numpy_pickle.NumpyArrayWrapper",
    }
)

#: As protocol 2 names them.
_FORMER = {"__builtin__": "builtins", "copy_reg": "copyreg"}

#: Private parts of scikit-learn's estimators that are no estimators themselves.
_PARTS = (
    "sklearn._loss.",
    "sklearn.ensemble._hist_gradient_boosting.",
    "sklearn.linear_model._sgd_fast",
    "sklearn.tree._tree",
)


def read_pickle(data: bytes) -> Any:
    """The object of a pickle, or of a joblib file, compressed or not.

    Raises:
        InvalidInputError: it is neither, or holds a type that is not allowed, which is named.
    """
    try:
        if data[:1] == b"\x80" and b"joblib.numpy_pickle" not in data[:4096]:
            return _Pickle(io.BytesIO(data)).load()
        return _joblib(data)
    except InvalidInputError:
        raise
    except Exception as error:
        raise InvalidInputError(
            f"The file is no pickle of an estimator ({type(error).__name__}); upload what "
            "model.save(path), skops, pickle or joblib wrote of a trained scikit-learn estimator.",
            field="file",
        ) from error


def _allowed(module: str, name: str) -> Any:
    module = _FORMER.get(module, module)
    written = f"{module}.{name}"
    if written in _PLAIN or written in TRUSTED:
        return _resolved(module, name)
    if module.startswith("numpy.dtypes") and name.endswith("DType"):
        return _resolved(module, name)
    if module.split(".")[0] == "sklearn" and "." not in name:
        found = _resolved(module, name)
        if isinstance(found, type) and (_is_estimator(found) or module.startswith(_PARTS)):
            return found
    raise InvalidInputError(
        f"The file holds {written}, which is not among the types that are known to be only data, "
        "so nothing of it was loaded; save the estimator with skops, or use one of scikit-learn's "
        "own with plain parameters.",
        field="file",
    )


def _resolved(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _is_estimator(found: type) -> bool:
    from sklearn.base import BaseEstimator

    return issubclass(found, BaseEstimator)


class _Pickle(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _allowed(module, name)

    def persistent_load(self, pid: object) -> Any:
        raise InvalidInputError(
            f"The file refers to an object outside itself ({pid!r}); save it anew.", field="file"
        )


def _joblib(data: bytes) -> Any:
    numpy_pickle: Any = importlib.import_module("joblib.numpy_pickle")
    utils: Any = importlib.import_module("joblib.numpy_pickle_utils")
    plain: Any = vars(pickle)["_Unpickler"]  # written in Python, as joblib's own

    def load_build(self: Any) -> None:
        plain.load_build(self)
        if not isinstance(self.stack[-1], numpy_pickle.NumpyArrayWrapper):
            return
        wrapper = self.stack.pop()
        if wrapper.dtype.hasobject:
            # Not every release of joblib reads these with the list of the outer one.
            inner = plain(self.file_handle)
            inner.find_class = _allowed
            array = inner.load().reshape(wrapper.shape)
        else:
            array = wrapper.read(self, True)
        self.stack.append(array)

    members = {
        "dispatch": {**plain.dispatch, pickle.BUILD[0]: load_build},
        "find_class": lambda _, module, name: _allowed(module, name),
        "load_build": load_build,
    }
    reader: Any = type("Reader", (numpy_pickle.NumpyUnpickler,), members)
    source: Any = io.BytesIO(data)
    name = utils._detect_compressor(source)
    if name == "compat":
        raise InvalidInputError(
            "The file is of joblib before 0.10; load it there and save it anew.", field="file"
        )
    if name != "not-compressed":
        source = utils._COMPRESSORS[name].decompressor_file(source)
    return reader("artifact", source, True, mmap_mode=None).load()
