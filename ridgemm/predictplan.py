"""How many rows, features and targets a prediction takes at once, within a number of bytes."""

from dataclasses import dataclass, replace

STRIP = 512
_ROWS, _COLUMNS, _SMALLEST = 8192, 4096, 16
# of a target: offsets, moments, what the fit left beside coefficients; of a feature: a scan's sums
PER_TARGET, PER_FEATURE = 100, 100


@dataclass(frozen=True)
class Steps:
    """A prediction by blocks.

    Attributes
    ----------
    n_train : int
        Training samples of a dual model, 0 for a primal one.
    p, n_threads : int
    scored : bool
        Targets are read too.
    on_demand : bool
        Training targets are read again, in the place of coefficients.
    rows, columns, targets : int
        New samples, features of a kernel and targets that are read, at once.
    """

    n_train: int
    p: int
    n_threads: int
    scored: bool
    on_demand: bool
    rows: int
    columns: int
    targets: int

    @property
    def n_bytes(self) -> int:
        """Workspaces of a block of rows."""
        strips = 4 * STRIP * (self.rows + 1) * self.n_threads
        y = 4 * self.targets * self.rows if self.scored else 0
        if not self.n_train:
            return 4 * self.p * self.rows + strips + y
        kernel = 12 * self.n_train * self.rows
        if self.on_demand:
            kernel += 4 * self.n_train * (self.rows + self.targets)
        return kernel + 4 * self.columns * (2 * self.rows + self.n_train) + strips + y

    def smaller(self) -> "Steps":
        """The same with the step halved that spares most; itself where none can be."""
        sizes = {
            "rows": (self.rows, _SMALLEST),
            "columns": (self.columns if self.n_train else 0, _SMALLEST),
            "targets": (self.targets if self.scored or self.on_demand else 0, STRIP),
        }
        options = [
            replace(self, **{name: max(size // 2, least)})
            for name, (size, least) in sizes.items()
            if size > least
        ]
        return min(options, key=lambda steps: steps.n_bytes, default=self)


def plan_steps(
    shape: tuple[int, int, int],
    n_train: int,
    n_threads: int,
    free: int,
    scored: bool,
    on_demand: bool = False,
) -> Steps:
    """The largest steps within `free` bytes; the smallest ones where none are.

    Parameters
    ----------
    shape : (n_new, n_features, n_targets)
    n_train : int
        Training samples of a dual model, 0 for a primal one.
    n_threads, free : int
    scored : bool
        Targets are read too.
    on_demand : bool
        So are training targets, in the place of coefficients.

    Examples
    --------
    >>> steps = plan_steps((100, 50, 1000), 0, 1, 10**9, False)
    >>> steps.rows, steps.columns
    (100, 50)
    """
    n, p, t = shape
    whole_strips = -(-t // STRIP) * STRIP
    steps = Steps(
        n_train, p, n_threads, scored, on_demand, min(_ROWS, n), min(_COLUMNS, p), whole_strips
    )
    while steps.n_bytes > free and (smaller := steps.smaller()) != steps:
        steps = smaller
    return steps
