"""What a run leaves, read back from its folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.errors import InputError, RidgemmError, StorageError, as_path, one_line
from ridgemm.estimators import Ridge, RidgeCV
from ridgemm.null import count_exceedances, fdr_pvalues, fwer_pvalues, pvalues, tail_statistic
from ridgemm.plots import plot_null_max
from ridgemm.private import private_folder
from ridgemm.report import report_null
from ridgemm.store import (
    checksum,
    open_array,
    publish_files,
    read_entry,
    read_manifest,
    save_array,
    storage_error,
    write_manifest,
)
from ridgemm.tails import besag_clifford_pvalues, gpd_pvalues
from ridgemm.tiles import spans

# float32 scores that differ by less, relative to 1 + |score|, are ties: they count
TIE = 1e-5
NULL = "null.npy"
_TAIL = 251


@dataclass(frozen=True)
class Null:
    """A reduced null distribution.

    Attributes
    ----------
    observed : (n_targets,) float64
    counts : (n_targets,) float64
        Exceedances; NaN for missing targets.
    mean, sd : (n_targets,) float64, optional
    largest : (n_permutations,) float64, optional
    scores : (n_permutations, n_targets) memmap, optional
    drawn, stopped : (n_targets,) arrays, optional
        Permutations of each target and whether it stopped early.
    """

    observed: np.ndarray
    counts: np.ndarray
    mean: np.ndarray | None
    sd: np.ndarray | None
    largest: np.ndarray | None
    scores: np.ndarray | None
    drawn: np.ndarray | None = None
    stopped: np.ndarray | None = None


@dataclass(eq=False, repr=False)
class PermutationResult:
    """The maps of a permutation test.

    Attributes
    ----------
    scores : (n_targets,) float64
        Mean test score over the outer folds; NaN for targets that were skipped.
    pvalues, pvalues_fdr : (n_targets,) float64
        Uncorrected, and Benjamini-Hochberg adjusted.
    pvalues_fwer : (n_targets,) float64 or None
        Corrected by the maximum statistic; None where targets stopped early.
    null_max : (n_permutations,) float64 or None
        Maximum over targets in every permutation.
    null_mean, null_sd : (n_targets,) float64 or None
    null : (n_permutations, n_targets) float32 memmap or None
        All null scores, if they were kept.
    fitted_tail : (n_targets,) bool or None
        p-values that come from a fitted tail.
    n_drawn : (n_targets,) int or None
        Permutations of each target, where they stopped early.
    n_permutations : int
    description : dict
        Scheme, null, scoring, route.
    folder : Path
    """

    scores: np.ndarray
    pvalues: np.ndarray
    pvalues_fdr: np.ndarray
    n_permutations: int
    description: dict[str, Any]
    folder: Path
    two_sided: bool = False
    pvalues_fwer: np.ndarray | None = None
    null_max: np.ndarray | None = None
    null_mean: np.ndarray | None = None
    null_sd: np.ndarray | None = None
    fitted_tail: np.ndarray | None = None
    n_drawn: np.ndarray | None = None
    null: np.ndarray | None = None

    def __repr__(self) -> str:
        # not the maps: they would fill the screen
        return (
            f"<PermutationResult: {self.description['scoring']} of {len(self.scores)} targets, "
            f"{self.n_permutations} permutations, in {str(self.folder)!r}>"
        )

    def summary(self, level: float = 0.05) -> str:
        """A table of what was done and how many targets are significant at `level`."""
        n_missing = int(np.isnan(self.scores).sum())
        rows = [
            ("targets", f"{len(self.scores)}" + (f", {n_missing} missing" if n_missing else "")),
            ("scheme", self.description["scheme"]),
            ("null", f"{self.description['null']}, {'two' if self.two_sided else 'one'}-sided"),
            ("score", f"{self.description['scoring']}, {self._range(self.scores)}"),
            ("route", self.description["route"]),
            ("smallest p", f"{1 / (1 + self.n_permutations):.2g} can be reached"),
        ]
        for name, p in (
            ("uncorrected", self.pvalues),
            ("FDR", self.pvalues_fdr),
            ("FWER", self.pvalues_fwer),
        ):
            if p is not None:
                found = f"{int((p <= level).sum())} targets with p <= {level:g}"
                smallest = "" if np.isnan(p).all() else f", smallest {np.nanmin(p):.2g}"
                rows.append((name, found + smallest))
        return "\n".join(f"{name:<12} {value}" for name, value in rows)

    @staticmethod
    def _range(values: np.ndarray) -> str:
        if np.isnan(values).all():
            return "of no target"
        low, middle, high = np.nanpercentile(values, (0, 50, 100))
        return f"{low:.3f} to {high:.3f}, median {middle:.3f}"

    def plot(self, path: str | Path, level: float = 0.05) -> None:
        """Draw the null of the maximum and the observed scores into a file.

        Raises
        ------
        InputError
            There is no null of the maximum, or matplotlib is not installed.
        """
        if self.null_max is None:
            raise InputError("targets stopped early, so that there is no null of the maximum.")
        figure = plot_null_max(
            self.scores,
            self.null_max,
            level=level,
            two_sided=self.two_sided,
            label=self.description["scoring"],
            title=self.description["scheme"],
        )
        figure.savefig(path, dpi=120)

    def report(self, path: str | Path, mask: Any = None) -> Path:
        """Write one HTML page of what was done and found; `ridgemm.report.report_null` says more.

        Parameters
        ----------
        path : path
            Ends in ``.html``.
        mask : bool array, path, nibabel image or nilearn masker, optional
            To draw maps, as for `ridgemm.plots.plot_map`.

        Returns
        -------
        Path
        """
        return report_null(self, path, mask)

    @classmethod
    def from_folder(cls, folder: Path) -> "PermutationResult":
        """A result that a run left; `ridgemm.load` calls this."""
        manifest = read_manifest(folder)
        try:
            return cls._from_manifest(folder, manifest)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            if isinstance(error, RidgemmError):
                raise
            raise StorageError(
                f"{str(folder)!r} holds a manifest that is damaged ({one_line(error)})."
            ) from error

    @classmethod
    def _from_manifest(cls, folder, manifest):
        arrays = {name: np.array(array) for name, array in read_entry(folder).items()}
        null = None
        if manifest["has_null"]:
            try:
                null = open_array(folder / NULL)[: manifest["n_permutations"]]
            except (OSError, ValueError, EOFError) as error:
                raise StorageError(
                    f"{str(folder / 'null.npy')!r} cannot be read ({error}); make the same call of "
                    "permutation_test again in a new folder."
                ) from error
        keep = {name: manifest[name] for name in ("n_permutations", "description", "two_sided")}
        return cls(**arrays, **keep, folder=folder, null=null)


def write_result(
    folder: Path,
    null: Null,
    n_permutations: int,
    two_sided: bool,
    tail: str | None,
    description: dict[str, Any],
    parts: str,
) -> PermutationResult:
    """p-values of a reduced null, written to its run folder.

    Parameters
    ----------
    folder : Path
    null : Null
    n_permutations : int
    two_sided : bool
    tail : str, optional
    description : dict
    parts : str
        Identity of the parts that were reduced.
    """
    statistic = tail_statistic(null.observed, two_sided)
    arrays = {"scores": null.observed}
    if null.drawn is not None:
        p = besag_clifford_pvalues(null.counts, np.maximum(null.drawn, 1), null.stopped)
        arrays["n_drawn"] = null.drawn
    else:
        p = pvalues(null.counts, n_permutations)
        reach = threshold(null.observed, two_sided)
        fwer = fwer_pvalues(reach, null.largest)
        if tail is not None:
            p, arrays["fitted_tail"] = _tail_pvalues(statistic, null, n_permutations, two_sided)
            counts = count_exceedances(reach, null.largest)
            top = np.sort(null.largest)[::-1][:_TAIL]
            fwer, _ = gpd_pvalues(statistic, top, counts, n_permutations)
        arrays |= {
            "pvalues_fwer": fwer,
            "null_max": null.largest,
            "null_mean": null.mean,
            "null_sd": null.sd,
        }
    arrays |= {"pvalues": p, "pvalues_fdr": fdr_pvalues(p)}
    manifest = {
        "kind": "PermutationResult",
        "n_permutations": n_permutations,
        "two_sided": two_sided,
        "description": description,
        "has_null": null.scores is not None,
        "tail": tail,
        "parts": parts,
    }
    # too large to be read again with the result: checked by `ridgemm.verify`, and on a resume
    large = [folder / NULL] if null.scores is not None else []
    try:
        manifest["large"] = {path.name: checksum(path) for path in large}
    except OSError as error:
        raise storage_error(folder, error) from error
    _write(folder, arrays, manifest)
    return PermutationResult.from_folder(folder)


def threshold(observed: np.ndarray, two_sided: bool) -> np.ndarray:
    """What a null statistic has to reach to count against a target: ties do."""
    return tail_statistic(observed, two_sided) - TIE * (1 + np.abs(observed))


def _tail_pvalues(
    statistic: np.ndarray, null: Null, n_permutations: int, two_sided: bool
) -> tuple[np.ndarray, np.ndarray]:
    p, fitted = np.empty(len(statistic)), np.zeros(len(statistic), dtype=bool)
    for columns in spans(len(statistic), 512):
        some = tail_statistic(null.scores[:n_permutations, columns], two_sided)
        top = -np.sort(-some, axis=0)[:_TAIL].T.astype(np.float64)
        p[columns], fitted[columns] = gpd_pvalues(
            statistic[columns], top, null.counts[columns], n_permutations
        )
    return p, fitted


def _write(folder: Path, arrays: dict[str, np.ndarray], manifest: dict[str, Any]) -> None:
    """Write the arrays of a result, each renamed into place, the manifest last."""
    try:
        with private_folder(folder, "result") as partial:
            for name, array in arrays.items():
                save_array(partial / f"{name}.npy", array)
            write_manifest(partial, manifest)
            publish_files(partial, folder)
    except OSError as error:
        raise storage_error(folder, error) from error


_KINDS = {"RidgeCV": RidgeCV, "Ridge": Ridge, "PermutationResult": PermutationResult}


def load(folder: str | Path) -> RidgeCV | Ridge | PermutationResult:
    """Read what ``save`` or a run left in a folder.

    Parameters
    ----------
    folder : path
        What a model was saved to, or the ``out`` of a run.

    Returns
    -------
    RidgeCV, Ridge or PermutationResult

    Raises
    ------
    StorageError
        The folder is missing, incomplete or damaged.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ridgemm import RidgeCV
    >>> X, Y = np.eye(4), np.arange(8.0).reshape(4, 2)
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     RidgeCV(cv="loo").fit(X, Y).save(f"{parent}/model")
    ...     model = load(f"{parent}/model")
    ...     model.predict(X).shape
    (4, 2)
    """
    folder = as_path(folder, "folder")
    kind = read_manifest(folder).get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise StorageError(f"{str(folder)!r} holds {kind!r}, which this version cannot read.")
    return _KINDS[kind].from_folder(folder)
