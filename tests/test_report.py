"""Reports are whole pages, hold the numbers, fetch nothing."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import ridgemm
from ridgemm import InputError, RidgeCV, StorageError, page, permutation_test

pytest.importorskip("matplotlib")

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tables, headings, pictures and references of a page that is well-formed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tables, self.headings, self.images = [], [], [], []
        self.tags, self.references, self.text = set(), [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        self.references += [
            attrs[name] for name in ("src", "href", "data", "action") if name in attrs
        ]
        assert not any(name.startswith("on") for name in attrs)
        if tag == "img":
            self.images.append(attrs)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag in ("h1", "h2"):
            self.headings.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings[-1] += data

    def rows(self):
        return [tuple(row) for table in self.tables for row in table]


def read(path):
    text = path.read_text(encoding="utf-8")
    found = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert {"html", "head", "body", "title", "style"} <= found.tags
    # nothing runs, nothing is fetched
    assert not {"script", "link", "iframe", "object", "base"} & found.tags
    assert all(reference.startswith("data:image/png;base64,") for reference in found.references)
    assert not re.search(r"https?://|@import|url\(", text)
    for image in found.images:
        assert image["alt"]
        png = base64.b64decode(image["src"].partition(",")[2], validate=True)
        assert picture(png).std() > 0.01
    return found


def picture(png):
    from matplotlib import image

    return image.imread(io.BytesIO(png))


def data():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((40, 4)), rng.standard_normal((40, 12))
    Y[:, :2] += 2 * X[:, :1]
    return X, Y


@pytest.fixture(scope="module")
def model():
    return RidgeCV([0.1, 10.0, 1000.0], cv=4).fit(*data())


@pytest.fixture(scope="module")
def result():
    X, Y = data()
    Y[3, 5] = np.nan
    options = {"cv": 3, "n_permutations": 39, "missing": "skip", "keep_null": True}
    return permutation_test(RidgeCV([1.0, 30.0], cv=2), X, Y, progress=False, **options)


def test_a_fit(model, tmp_path):
    path = model.report(tmp_path / "report.html")
    found, rows = read(path), read(path).rows()
    assert found.headings == [
        "RidgeCV: report of a fit",
        "Scores",
        "Pictures",
        "Plan",
        "Time",
        "Parameters",
    ]
    quantiles = np.percentile(model.best_score_, (0, 5, 25, 50, 75, 95, 100))
    assert tuple(f"{q:.3f}" for q in quantiles) in rows
    assert ("alphas", "0.1, 10, 1000") in rows and ("cv", "4") in rows
    assert ("scoring", "r2") in rows and ("constant targets", "0") in rows
    for line in str(model.plan_).splitlines():
        name, value = line.split("  ", 1)
        assert (name, value.strip()) in rows
    for name, seconds in model.took_.items():
        assert (name, f"{seconds:.3g} s") in rows
    assert len(found.images) == 3
    share = np.mean(model.alpha_ == 1000)
    assert f"{share:.1%} the largest" in found.text


def test_one_alpha_for_all(tmp_path):
    model = RidgeCV([0.1, 10.0], cv=4, alpha_per_target=False).fit(*data())
    found = read(model.report(tmp_path / "report.html"))
    assert ("alpha of all targets", f"{model.alpha_:.4g}") in found.rows()
    assert ("score, mean over targets", f"{model.best_score_:.3f}") in found.rows()
    assert len(found.images) == 1


def test_a_model_that_was_loaded(model, tmp_path):
    model.save(tmp_path / "model")
    found = read(ridgemm.load(tmp_path / "model").report(tmp_path / "report.html"))
    fitted = read(model.report(tmp_path / "fitted.html"))
    assert "Time" in found.headings and found.headings == fitted.headings
    assert any(name == "route" for name, *_ in found.rows())


def test_a_permutation_test(result, tmp_path):
    found = read(result.report(tmp_path / "report.html"))
    rows = found.rows()
    assert found.headings[0] == "Permutation test: r2 of 12 targets"
    assert ("targets", "12, 1 missing") in rows
    assert ("scheme", result.description["scheme"]) in rows
    kinds = (result.pvalues, result.pvalues_fdr, result.pvalues_fwer)
    for level in (0.05, 0.01, 0.001):
        assert (f"{level:g}", *(str((p <= level).sum()) for p in kinds)) in rows
    best = int(np.nanargmax(result.scores))
    assert (
        str(best),
        f"{result.scores[best]:.3f}",
        *(f"{p[best]:.3g}" for p in kinds),
    ) in rows
    took = result.description["took"]
    times = {row[0]: row[-1] for row in found.tables[-1][1:]}
    assert times == {name: f"{seconds:.3g}" for name, seconds in took.items()}
    # warnings of the plan: 39 permutations are few
    assert "have a standard error of" in found.text
    assert len(found.images) == 2


def test_maps(result, model, tmp_path):
    inside = np.zeros((4, 5), dtype=bool)
    inside.flat[:12] = True
    assert len(read(result.report(tmp_path / "a.html", mask=inside)).images) == 5
    assert len(read(model.report(tmp_path / "b.html", inside)).images) == 4
    nibabel = pytest.importorskip("nibabel")
    pytest.importorskip("nilearn")
    mask = nibabel.Nifti1Image(inside[:, :, None].astype(np.uint8), np.diag([3.0, 3, 3, 1]))
    mask.to_filename(tmp_path / "mask.nii")
    assert len(read(result.report(tmp_path / "c.html", tmp_path / "mask.nii")).images) == 5


def test_targets_that_stopped_early(tmp_path):
    options = {"cv": 3, "n_permutations": 39, "stop": "besag-clifford", "progress": False}
    result = permutation_test(RidgeCV([1.0], cv=2), *data(), **options)
    found = read(result.report(tmp_path / "report.html"))
    assert ("p of at most", "uncorrected", "FDR") in found.rows()


def test_the_same_result_gives_the_same_page(result, tmp_path):
    pages = [result.report(tmp_path / name).read_bytes() for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]


def test_a_loaded_result_gives_the_same_page(tmp_path):
    options = {"cv": 3, "n_permutations": 19, "progress": False, "out": tmp_path / "run"}
    result = permutation_test(RidgeCV([1.0], cv=2), *data(), **options)
    loaded = ridgemm.load(tmp_path / "run")
    pages = [r.report(tmp_path / "page.html").read_bytes() for r in (result, loaded)]
    assert pages[0] == pages[1]
    # files that are there for people may be gone
    (tmp_path / "run" / "plan.json").unlink()
    (tmp_path / "run" / "took.json").write_text("{")
    assert "Plan" not in read(loaded.report(tmp_path / "page.html")).headings


def test_text_is_escaped(result, model, tmp_path):
    wicked = '<script>alert("&")</script>'
    found = Page(page.table([(wicked, 1)], (wicked, "b")) + page.paragraph(wicked))
    assert "script" not in found.tags and found.rows()[1] == (wicked, "1")
    other = RidgeCV(cache_dir=wicked).set_params(**{"cv": wicked})
    other.__dict__ = {**model.__dict__, **other.__dict__}
    found = read(other.report(tmp_path / "report.html"))
    assert ("cache_dir", wicked) in found.rows()


def test_wrong_paths(result, model, tmp_path):
    with pytest.raises(InputError, match=r"must end in \.html"):
        result.report(tmp_path / "report.pdf")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        model.report(tmp_path / "file" / "report.html")
    with pytest.raises(ValueError, match="not fitted"):
        RidgeCV().report(tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
