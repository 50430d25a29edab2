"""Permutation schemes: which rearrangements of the rows are as likely as the observed order.

Permutation ``i`` is a function of ``(random_state, i)`` alone, so a null distribution does not
depend on how the work was cut into batches, or on where a run stopped.
"""

import hashlib
import math
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np

from ridgemm.errors import InputError

__all__ = ["PermutationScheme", "permutation_scheme"]

# Larger counts are reported as infinity: 69202! has 304,000 digits and no use.
_LARGEST_COUNT = 2**63 - 1


class _Groups:
    """Rows sorted by group: the geometry that every scheme shares.

    Rows of a group need not be contiguous. `members` lists the rows group by group, in row
    order inside each; group ``g`` is ``members[starts[g] : starts[g] + sizes[g]]``.
    """

    def __init__(self, codes):
        self.codes = codes
        self.sizes = np.bincount(codes)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.members = np.argsort(codes, kind="stable")
        self.member_codes = codes[self.members]
        self.positions = np.arange(codes.size) - self.starts[self.member_codes]

    def place(self, sources):
        """Rows of the permutation that moves ``sources[j]`` to row ``members[j]``."""
        rows = np.empty(self.members.size, dtype=np.intp)
        rows[self.members] = sources
        return rows


# Each scheme has `n_distinct`, `random(rng)` and `unrank(rank)`; the last two return rows and
# signs as `PermutationScheme.draw` does. Rank 0 is the identity.


class _Shuffle:
    """Permute rows inside each group."""

    def __init__(self, groups):
        self.groups = groups
        # 21! is above the largest count already, larger factorials would only cost time.
        self.n_distinct = _product(math.factorial(min(size, 21)) for size in groups.sizes.tolist())

    def random(self, rng):
        # A stable sort by group of one uniform permutation is uniform inside every group,
        # without a Python loop over groups.
        groups = self.groups
        shuffled = rng.permutation(groups.codes.size)
        by_group = np.argsort(groups.codes[shuffled], kind="stable")
        return groups.place(shuffled[by_group]), None

    def unrank(self, rank):
        groups = self.groups
        sources = groups.members.copy()
        for start, size in zip(groups.starts.tolist(), groups.sizes.tolist(), strict=True):
            if size > 1:
                rank, digit = divmod(rank, math.factorial(size))
                sources[start : start + size] = groups.members[start + _unrank(digit, size)]
        return groups.place(sources), None


class _Exchange:
    """Exchange whole groups with others of the same size, each in its own row order."""

    def __init__(self, groups):
        self.groups = groups
        strata = np.unique(groups.sizes, return_inverse=True)[1]
        self.shuffle = _Shuffle(_Groups(strata))
        self.n_distinct = self.shuffle.n_distinct

    def _rows(self, source_groups):
        groups = self.groups
        starts = groups.starts[source_groups[groups.member_codes]]
        return groups.place(groups.members[starts + groups.positions])

    def random(self, rng):
        return self._rows(self.shuffle.random(rng)[0]), None

    def unrank(self, rank):
        return self._rows(self.shuffle.unrank(rank)[0]), None


class _Shift:
    """Shift each group circularly, by at least `min_shift` rows both ways round."""

    def __init__(self, groups, min_shift):
        self.groups = groups
        self.min_shift = min_shift
        # A shift by the full size is the shift by 0, so it is not counted a second time.
        self.n_shifts = groups.sizes - max(2 * min_shift - 1, 0)
        self.n_distinct = _product(self.n_shifts.tolist()) + (min_shift > 0)

    def _rows(self, shifts):
        groups = self.groups
        codes = groups.member_codes
        positions = (groups.positions - shifts[codes]) % groups.sizes[codes]
        return groups.place(groups.members[groups.starts[codes] + positions])

    def random(self, rng):
        return self._rows(self.min_shift + rng.integers(0, self.n_shifts)), None

    def unrank(self, rank):
        if rank == 0:
            return np.arange(self.groups.members.size, dtype=np.intp), None
        rank -= self.min_shift > 0  # the identity is then not one of the allowed shifts
        shifts = np.empty_like(self.n_shifts)
        for group, radix in enumerate(self.n_shifts.tolist()):
            rank, digit = divmod(rank, radix)
            shifts[group] = self.min_shift + digit
        return self._rows(shifts), None


class _Flip:
    """Flip the sign of each group of rows."""

    def __init__(self, codes):
        self.codes = codes
        self.n_groups = int(codes.max()) + 1
        self.n_distinct = 2**self.n_groups if self.n_groups < 63 else math.inf

    def _signs(self, flipped):
        signs = (1 - 2 * flipped.astype(np.int8))[self.codes]
        return np.arange(self.codes.size, dtype=np.intp), signs

    def random(self, rng):
        return self._signs(rng.integers(0, 2, size=self.n_groups))

    def unrank(self, rank):
        return self._signs((rank >> np.arange(self.n_groups)) & 1)


class _Given:
    """The user's own permutations, one per row of an array that is read, never copied."""

    def __init__(self, permutations, n_samples, n_permutations):
        if permutations.ndim != 2 or permutations.shape[1] != n_samples:
            raise InputError(
                f"scheme has shape {permutations.shape}; an array of permutations must have "
                f"shape (n_permutations, n_samples), here (..., {n_samples})."
            )
        if permutations.dtype.kind not in "iu":
            raise InputError(
                f"scheme has dtype {permutations.dtype}; an array of permutations must hold "
                "integers, row numbers from 0: convert it with .astype(int)."
            )
        if len(permutations) == 0:
            raise InputError("scheme has no rows; give at least one permutation.")
        self.permutations = permutations[:n_permutations]
        self.n_distinct = self._validate(n_samples)

    def _validate(self, n_samples):
        """Check that each row is a permutation; count the distinct ones and the identity."""
        digests = {_digest(np.arange(n_samples, dtype=np.intp))}
        for i, row in enumerate(self.permutations):
            seen = np.zeros(n_samples, dtype=bool)
            if row.min() >= 0 and row.max() < n_samples:
                seen[row] = True
            if not seen.all():
                raise InputError(
                    f"scheme[{i}] is not a permutation; each row must hold every integer "
                    f"from 0 to {n_samples - 1} once."
                )
            digests.add(_digest(row.astype(np.intp)))
        return len(digests)

    def row(self, i):
        return np.array(self.permutations[i], dtype=np.intp), None


@dataclass(frozen=True, eq=False)
class PermutationScheme:
    """What may be exchanged with what, and how often; made by `ridgemm.permutation_scheme`.

    Attributes
    ----------
    name : str
        "free", "within", "whole", "circular", "sign" or "given" (the user's array).
    n_samples : int
        Number of rows that are permuted.
    n_permutations : int
        Number of permutations really used, the identity not counted: the ``m`` of
        ``p = (1 + c) / (1 + m)``. At most what was asked for.
    n_requested : int
        Number of permutations asked for.
    exhaustive : bool
        Whether every distinct permutation is enumerated once, because no more exist than
        were asked for.
    n_distinct : int or math.inf
        Number of distinct permutations, the identity included; infinity above 2**63 - 1.
    n_groups : int or None
        Number of groups, None where the scheme uses none.
    random_state : int
        Seed of the random permutations.
    """

    name: str
    n_samples: int
    n_permutations: int
    n_requested: int
    exhaustive: bool
    n_distinct: int | float
    n_groups: int | None
    random_state: int
    _moves: object = field(repr=False)

    def draw(self, i: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Permutation `i`, a function of ``(random_state, i)`` alone.

        The permuted data are ``Y[rows]``, times ``signs[:, None]`` where there are signs.
        The observed order is not in the sequence, except by chance in a random one.

        Parameters
        ----------
        i : int
            From 0 to ``n_permutations - 1``.

        Returns
        -------
        rows : ndarray of shape (n_samples,), dtype intp
            Which row comes to each place.
        signs : None or ndarray of shape (n_samples,), dtype int8
            +1 or -1 for each place; None where the scheme flips no signs.
        """
        if not 0 <= i < self.n_permutations:
            raise IndexError(
                f"permutation {i} does not exist; the scheme has {self.n_permutations}."
            )
        if self.name == "given":
            return self._moves.row(i)
        if self.exhaustive:
            return self._moves.unrank(i + 1)  # rank 0 is the identity
        sequence = np.random.SeedSequence(entropy=self.random_state, spawn_key=(i,))
        return self._moves.random(np.random.Generator(np.random.Philox(sequence)))

    def describe(self) -> str:
        """One sentence that says which permutations are used."""
        moved = _MOVED[self.name, self.n_groups is not None].format(
            n_samples=self.n_samples, n_groups=self.n_groups
        )
        if self.name == "given":
            return f"The {self.n_permutations} {moved}."
        if self.exhaustive:
            return (
                f"All {self.n_permutations} {moved} other than the identity, enumerated "
                f"({self.n_requested} were asked for)."
            )
        return f"{self.n_permutations} random {moved} (seed {self.random_state})."


_MOVED = {
    ("free", False): "free permutations of {n_samples} rows",
    ("within", True): "permutations of {n_samples} rows within {n_groups} groups",
    ("whole", True): "permutations of {n_groups} whole groups of rows",
    ("circular", False): "circular shifts of {n_samples} rows",
    ("circular", True): "circular shifts of {n_samples} rows inside {n_groups} groups",
    ("sign", False): "sign flips of {n_samples} rows",
    ("sign", True): "sign flips of {n_groups} whole groups of rows",
    ("given", False): "permutations of {n_samples} rows given by the user",
}

_NAMES = ("free", "within", "whole", "circular", "sign")


def permutation_scheme(
    scheme: Any,
    n_samples: int,
    n_permutations: int,
    groups: Any = None,
    random_state: int = 0,
    min_shift: int = 1,
) -> PermutationScheme:
    """Choose which permutations of the rows make the null distribution.

    A permutation test asks which rearrangements would be as likely as the observed order if
    there were no effect; `scheme` is the answer. When no more distinct permutations exist
    than `n_permutations`, each is used once, in a fixed order, and the others are not made
    up: `PermutationScheme.exhaustive` is then True and ``n_permutations = n_distinct - 1``.

    Parameters
    ----------
    scheme : {"free", "within", "whole", "circular", "sign"} or int array
        * "free": all orders of the rows. Assumes exchangeable rows; `groups` are ignored.
        * "within": orders of the rows inside each group. Assumes rows exchangeable there.
        * "whole": groups change places with groups of the same size, the rows of each in
          their own order. Assumes exchangeable groups; rows of a group may depend on each
          other in any way.
        * "circular": each group, or the whole series without `groups`, is shifted
          circularly by its own number of rows, which keeps the autocorrelation but for one
          seam. Assumes stationary series. The test is exact for such series when the shifts
          form a group: `min_shift` 0, or `min_shift` 1 with a single series. Otherwise it is
          approximate.
        * "sign": each row, or each group as a whole with `groups`, is multiplied by -1 or
          +1. Assumes that the data are independent between rows (or groups) and symmetric
          about zero, so the data must be differences or residuals: a mean other than zero is
          itself an effect. Flipping all signs is a permutation like any other.
        * an integer array of shape (m, n_samples): the user's own permutations, of which the
          first `n_permutations` are used; `groups` are ignored.
    n_samples : int
        Number of rows.
    n_permutations : int
        Number of permutations wanted, the observed order not counted.
    groups : array-like of shape (n_samples,), default=None
        Group label of each row (run, session, family, subject). Rows of a group need not be
        contiguous. Required by "within" and "whole".
    random_state : int, default=0
        Seed. None is not accepted: a run must be able to resume with the same permutations.
        Permutations are the same for any number of processes, tiles and batches; a different
        release of NumPy may draw others.
    min_shift : int, default=1
        For "circular", the shortest shift, both ways round: shifts go from `min_shift` to
        ``size - min_shift``. With 0, the observed order of one group may occur.

    Returns
    -------
    PermutationScheme

    Examples
    --------
    >>> from ridgemm.schemes import permutation_scheme
    >>> scheme = permutation_scheme("within", 6, 1000, groups=[0, 0, 0, 1, 1, 1])
    >>> scheme.exhaustive, scheme.n_permutations
    (True, 35)
    >>> rows, signs = scheme.draw(0)
    >>> rows
    array([0, 2, 1, 3, 4, 5])
    >>> permutation_scheme("sign", 100, 1000).describe()
    '1000 random sign flips of 100 rows (seed 0).'
    """
    n_samples = check_integer("n_samples", n_samples, 1)
    n_permutations = check_integer("n_permutations", n_permutations, 1)
    random_state = check_integer("random_state", random_state, 0)
    if not isinstance(scheme, str):
        moves, name, n_groups = _Given(np.asarray(scheme), n_samples, n_permutations), "given", None
        n_used, exhaustive = len(moves.permutations), False
    else:
        name = scheme
        moves, n_groups = _named_moves(name, n_samples, groups, min_shift)
        exhaustive = moves.n_distinct - 1 <= n_permutations
        n_used = moves.n_distinct - 1 if exhaustive else n_permutations
    return PermutationScheme(
        name=name,
        n_samples=n_samples,
        n_permutations=n_used,
        n_requested=n_permutations,
        exhaustive=exhaustive,
        n_distinct=moves.n_distinct,
        n_groups=n_groups,
        random_state=random_state,
        _moves=moves,
    )


def _named_moves(name, n_samples, groups, min_shift):
    """Make the moves of a named scheme; return them and the number of groups or None."""
    if name not in _NAMES:
        raise InputError(
            f"scheme={name!r} is unknown; use one of {', '.join(map(repr, _NAMES))}, or an "
            "integer array of permutations."
        )
    if groups is None and name in ("within", "whole"):
        raise InputError(
            f"groups=None, but scheme={name!r} needs one group label per row; pass groups, "
            "or use scheme='free'."
        )
    if groups is None or name == "free":
        codes, labels = np.zeros(n_samples, dtype=np.intp), None
    else:
        codes, labels = _group_codes(groups, n_samples)

    if name in ("free", "within"):
        moves = _Shuffle(_Groups(codes))
    elif name == "whole":
        moves = _Exchange(_Groups(codes))
    elif name == "circular":
        moves = _shifts(_Groups(codes), min_shift, labels)
    else:
        moves = _Flip(codes if labels is not None else np.arange(n_samples))
    if moves.n_distinct == 1:
        raise InputError(_nothing_to_permute(name, n_samples))
    return moves, None if labels is None else labels.size


def _nothing_to_permute(name, n_samples):
    reasons = {
        "within": "every group has one row; use larger groups, or scheme='free'",
        "whole": "no two groups have the same size; use scheme='within', or cut the data "
        "into groups of equal size",
    }
    reason = reasons.get(name, f"n_samples={n_samples} leaves only the observed order; add rows")
    return f"scheme={name!r} has nothing to permute: {reason}."


def _shifts(groups, min_shift, labels):
    min_shift = check_integer("min_shift", min_shift, 0)
    smallest = int(groups.sizes.argmin())
    size = int(groups.sizes[smallest])
    if 2 * min_shift > size:
        where = "the series" if labels is None else f"group {labels[smallest]!s}"
        raise InputError(
            f"min_shift={min_shift} is too large: {where} has {size} rows; use at most {size // 2}."
        )
    return _Shift(groups, min_shift)


def _group_codes(groups, n_samples):
    groups = np.asarray(groups)
    if groups.shape != (n_samples,):
        raise InputError(
            f"groups has shape {groups.shape}; give one label for each of the "
            f"{n_samples} rows, shape ({n_samples},)."
        )
    if groups.dtype.kind == "f" and np.isnan(groups).any():
        raise InputError("groups holds NaN; give every row a group label.")
    labels, codes = np.unique(groups, return_inverse=True)
    return codes.astype(np.intp), labels


def check_integer(name, value, smallest):
    """An argument that must be an int of at least `smallest`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < smallest:
        raise InputError(f"{name}={value!r} is not valid; use an integer >= {smallest}.")
    return int(value)


def _product(factors):
    """Exact product of positive integers, infinity as soon as it is above the largest count."""
    product = 1
    for factor in factors:
        product *= factor
        if product > _LARGEST_COUNT:
            return math.inf
    return product


def _unrank(rank, size):
    """Permutation number `rank` of `size` items in lexicographic order; 0 is the identity."""
    items = list(range(size))
    order = []
    for remaining in range(size - 1, -1, -1):
        digit, rank = divmod(rank, math.factorial(remaining))
        order.append(items.pop(digit))
    return np.array(order, dtype=np.intp)


def _digest(row):
    return hashlib.blake2b(row.tobytes(), digest_size=16).digest()
