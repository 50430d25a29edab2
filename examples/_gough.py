"""What the examples on the Gough Island cross share: genotypes, phenotypes and sex."""

import numpy as np

WEEKS = np.arange(1, 17)
KINDS = {"": "weight", "sm": "smoothed weight", "deriv": "growth rate"}


def read_cross(folder):
    """Genotypes, phenotypes, their names and sex in the files of a folder."""
    genotypes = np.load(folder / "genotypes.npy", mmap_mode="r")
    phenotypes = np.load(folder / "phenotypes.npy")
    names = (folder / "phenotype_names.txt").read_text().split()
    return genotypes, phenotypes, names, np.load(folder / "sex.npy")


def simulate_cross(n_mice=250, n_chromosomes=19, n_markers=60, seed=0):
    """Grandchildren of two inbred strains; genes and sex act on early growth, chance on all."""
    rng = np.random.default_rng(seed)
    n_weeks, n_loci = len(WEEKS), n_chromosomes * n_markers
    # a gamete changes between the two grandparents by a crossing-over, or with the chromosome
    change = np.full(n_loci, 0.015)
    change[::n_markers] = 0.5
    gametes = np.logical_xor.accumulate(rng.random((2, n_mice, n_loci)) < change, axis=2)
    genotypes = gametes.sum(axis=0, dtype=np.int8)
    sex = rng.integers(0, 2, n_mice, dtype=np.int8)

    effects = rng.standard_normal(n_loci) * (rng.random(n_loci) < 0.05)
    genes = (genotypes - 1) @ effects
    growth = genes[:, None] / genes.std() + rng.standard_normal((n_mice, n_weeks))
    growth += sex[:, None]
    rates = 3 * np.exp(-WEEKS / 5) * (1 + 0.2 * growth)
    rates += 0.1 * rng.standard_normal((n_mice, n_weeks))
    smooth = 3 + np.cumsum(rates, axis=1)
    weights = smooth + 0.5 * rng.standard_normal((n_mice, n_weeks))

    genotypes[rng.random(genotypes.shape) < 0.01] = -1
    weights[rng.random(weights.shape) < 0.01] = np.nan
    names = [f"wk{week}{kind}" for kind in KINDS for week in WEEKS]
    return genotypes, np.hstack([weights, smooth, rates]).astype(np.float32), names, sex


def centre_within_sex(columns, sex):
    """The columns less the mean of each sex, float32."""
    centred = np.empty(columns.shape, dtype=np.float32)
    for value in np.unique(sex):
        rows = sex == value
        centred[rows] = columns[rows] - columns[rows].mean(axis=0, dtype=np.float64)
    return centred


def write_features(genotypes, sex, path, block=1000):
    """Write dosages as a float32 ``.npy``, filled by marker means and centred within sex."""
    X = np.lib.format.open_memmap(path, "w+", np.float32, genotypes.shape)
    for first in range(0, genotypes.shape[1], block):
        dosages = genotypes[:, first : first + block].astype(np.float64)
        dosages[dosages < 0] = np.nan
        dosages = np.where(np.isnan(dosages), np.nanmean(dosages, axis=0), dosages)
        X[:, first : first + block] = centre_within_sex(dosages, sex)
    X.flush()
