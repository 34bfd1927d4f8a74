"""Dealing rows: which are held out, and which site has which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..exceptions import InvalidInputError

__all__ = ["dirichlet_split", "split_by_column", "stratified_holdout"]

#: Redraws before a split counts as impossible. A draw takes well under a millisecond.
_TRIES = 2_000

#: Draws that show that the number of sites in an error message is likely to work. One site
#: always does.
_HINT_TRIES = 100

#: Beyond this all sites are alike to the last row, and gamma draws lose their precision.
_MAX_ALPHA = 1e6


def stratified_holdout(
    y: np.ndarray, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into (train, test) so that both have the classes' shares.

    A class of two rows or more has at least one on either side; a class of one row is
    trained on.

    Args:
        y: class places, int (n,).
        fraction: share of test rows, in (0, 1).

    Returns:
        Two sorted int64 arrays of row places; together they are every row once.

    Raises:
        InvalidInputError: the fraction is out of range, or no row is left on one side.
    """
    if not 0 < fraction < 1:
        raise InvalidInputError(
            f"A share of {fraction:g} cannot be held out; choose one between 0 and 1, "
            "such as 0.25.",
            field="holdout",
        )
    test: list[np.ndarray] = []
    for code, wanted in _holdout_counts(y, fraction).items():
        rows = np.flatnonzero(y == code)
        test.append(rng.permutation(rows)[:wanted])
    held_out = np.sort(np.concatenate(test)) if test else np.empty(0, np.int64)
    train = np.setdiff1d(np.arange(len(y)), held_out, assume_unique=True)
    if not len(held_out) or not len(train):
        raise InvalidInputError(
            f"{len(y)} rows are too few to hold out {fraction:g} of them in every class; "
            "give at least two rows a class.",
            field="holdout",
        )
    return train, held_out


def _holdout_counts(y: np.ndarray, fraction: float) -> dict[int, int]:
    """Test rows by class: largest remainders, so that the total is right, too."""
    codes, sizes = np.unique(y, return_counts=True)
    exact = sizes * fraction
    counts = np.floor(exact).astype(np.int64)
    for place in np.argsort(counts - exact, kind="stable")[
        : round(len(y) * fraction) - counts.sum()
    ]:
        counts[place] += 1
    counts = np.clip(counts, np.minimum(1, sizes - 1), sizes - 1)
    return {int(code): int(count) for code, count in zip(codes, counts, strict=True)}


def dirichlet_split(
    y: np.ndarray,
    sites: int,
    alpha: float,
    rng: np.random.Generator,
    min_rows: int = 5,
    min_classes: int = 2,
) -> list[np.ndarray]:
    """Deal every row to one of ``sites`` sites, with label skew.

    The rows of each class are dealt in shares drawn from a symmetric Dirichlet distribution:
    a small ``alpha`` gives each class to few sites, a large one makes all sites alike. Drawn
    again until every site has ``min_rows`` rows of ``min_classes`` classes.

    Args:
        y: class places, int (n,).
        alpha: concentration, positive, at most a million.

    Returns:
        One sorted int64 array of row places a site; together they are every row once.

    Raises:
        InvalidInputError: there are more sites than rows allow, or no draw was good enough.

    Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated
    Visual Classification", section 3 (https://arxiv.org/abs/1909.06335), with the shares
    drawn class by class as in Yurochkin et al. 2019, "Bayesian Nonparametric Federated
    Learning of Neural Networks", section 4 (https://arxiv.org/abs/1905.12022).
    """
    codes, sizes = np.unique(y, return_counts=True)
    _check_split(len(y), len(codes), sites, alpha, min_rows, min_classes)
    ends = _draw_ends(sizes, sites, alpha, rng, min_rows, min_classes, tries=_TRIES)
    if ends is not None:
        return _deal(y, codes, ends, rng)
    fewer = sites // 2
    while _draw_ends(sizes, fewer, alpha, rng, min_rows, min_classes, tries=_HINT_TRIES) is None:
        fewer //= 2
    raise InvalidInputError(
        f"No split of {len(y)} rows over {sites} sites with dirichlet:{alpha:g} gave each site "
        f"{min_rows} rows of {min_classes} classes; choose fewer sites, such as --clients {fewer}, "
        "or an alpha above that.",
        field="clients",
    )


def _draw_ends(
    sizes: np.ndarray,
    sites: int,
    alpha: float,
    rng: np.random.Generator,
    min_rows: int,
    min_classes: int,
    *,
    tries: int,
) -> np.ndarray | None:
    """Where each site's rows of each class end, int (classes, sites); None if no draw served."""
    for _ in range(tries):
        shares = rng.dirichlet(np.full(sites, alpha), size=len(sizes))
        # Cuts at rounded cumulated shares: every row of a class is dealt exactly once.
        ends: np.ndarray = np.rint(np.cumsum(shares, axis=1) * sizes[:, None]).astype(np.int64)
        ends[:, -1] = sizes
        counts = np.diff(ends, axis=1, prepend=0)
        enough_rows = (counts.sum(axis=0) >= min_rows).all()
        if enough_rows and ((counts > 0).sum(axis=0) >= min_classes).all():
            return ends
    return None


def _check_split(
    rows: int, classes: int, sites: int, alpha: float, min_rows: int, min_classes: int
) -> None:
    if sites < 1:
        raise InvalidInputError(
            f"Rows cannot be dealt to {sites} sites; choose 1 or more.", field="clients"
        )
    if not 0 < alpha <= _MAX_ALPHA:
        raise InvalidInputError(
            f"dirichlet:{alpha:g} is no split; alpha is above 0 and at most {_MAX_ALPHA:g}, "
            "such as 0.5.",
            field="split",
        )
    if sites * max(min_rows, min_classes) > rows:
        most = rows // max(min_rows, min_classes, 1)
        raise InvalidInputError(
            f"{rows} rows are too few for {sites} sites of at least "
            f"{max(min_rows, min_classes)} rows; choose {most} sites or fewer."
            if most
            else f"{rows} rows are too few for even one site of {max(min_rows, min_classes)} rows; "
            "give a larger table.",
            field="clients",
        )
    if classes < min_classes:
        raise InvalidInputError(
            f"The rows have {classes} class{'es' * (classes != 1)}, but every site needs "
            f"{min_classes}; choose a target that varies.",
            field="target",
        )


def _deal(
    y: np.ndarray, codes: np.ndarray, ends: np.ndarray, rng: np.random.Generator
) -> list[np.ndarray]:
    parts: list[list[np.ndarray]] = [[] for _ in range(ends.shape[1])]
    for code, cuts in zip(codes, ends, strict=True):
        rows = rng.permutation(np.flatnonzero(y == code))
        for site, piece in enumerate(np.split(rows, cuts[:-1])):
            parts[site].append(piece)
    return [np.sort(np.concatenate(pieces)) for pieces in parts]


def split_by_column(values: Sequence[str]) -> dict[str, np.ndarray]:
    """Deal rows by the value of a column: value -> sorted int64 row places.

    Sites are in the order of their names; whole numbers are ordered by value.
    """
    names, site = np.unique(np.asarray(values, dtype=object).astype(str), return_inverse=True)
    parts = {str(name): np.flatnonzero(site == place) for place, name in enumerate(names)}
    if all(name.isdecimal() and len(name) <= 18 for name in parts):
        return {name: parts[name] for name in sorted(parts, key=int)}
    return parts
