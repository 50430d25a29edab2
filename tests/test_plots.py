"""Pictures show the numbers that they were given."""

import sys
import threading
from itertools import pairwise

import numpy as np
import pytest

from ridgemm import InputError, plots
from ridgemm.null import fwer_pvalues

pytest.importorskip("matplotlib")

INSIDE = np.zeros((4, 3), dtype=bool)
INSIDE[[0, 1, 3], [2, 0, 1]] = True


def texts(figure):
    """Every text of a figure, its panels' too."""
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def drawn(axes):
    """The arrays of a panel, the topmost last, as (x, y), NaN where nothing is drawn."""
    return [np.ma.filled(image.get_array().astype(float), np.nan).T for image in axes.images]


# -- maps ------------------------------------------------------------------------------------


def test_a_map_puts_values_where_voxels_lie():
    figure = plots.plot_map([1.0, -2.0, 3.0], INSIDE, label="Pearson r", title="a map")
    below, above = drawn(figure.axes[0])
    ref = np.full(INSIDE.shape, np.nan)
    ref[0, 2], ref[1, 0], ref[3, 1] = 1, -2, 3
    np.testing.assert_array_equal(above, ref)
    np.testing.assert_array_equal(np.isfinite(below), INSIDE)  # the mask shows
    image = figure.axes[0].images[-1]
    assert image.get_clim() == (0, 3) and image.get_cmap().name == "inferno"
    assert {"Pearson r", "a map"} <= set(texts(figure))
    # -2 lies below the scale, which says so
    assert figure.axes[-1]._colorbar.extend == "min"


def test_a_signed_map_has_two_hues_that_meet_at_0():
    figure = plots.plot_map([1.0, -2.0, np.nan], INSIDE, signed=True)
    image = figure.axes[0].images[-1]
    assert image.get_clim() == (-2, 2) and image.get_cmap().name == "RdBu_r"
    assert np.isnan(drawn(figure.axes[0])[-1][3, 1])


def test_slices_of_a_volume():
    inside = np.zeros((3, 3, 6), dtype=bool)
    inside[:, :, 2:5] = True
    values = np.arange(inside.sum(), dtype=float)
    background = np.random.default_rng(0).random(inside.shape)
    volume = np.full(inside.shape, np.nan)
    volume[inside] = values
    figure = plots.plot_map(values, inside, background=background, slices=[4, 2], vmax=10)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["z = 4", "z = 2"]
    for axes, level in zip(shown, (4, 2), strict=True):
        below, above = drawn(axes)
        np.testing.assert_array_equal(below, background[:, :, level])
        np.testing.assert_array_equal(above, volume[:, :, level])
        assert axes.images[-1].get_clim() == (0, 10)
    assert figure.axes[-1]._colorbar.extend == "max"
    by_itself = plots.plot_map(values, inside)
    titles = [axes.get_title() for axes in by_itself.axes if axes.images]
    assert titles == ["z = 2", "z = 3", "z = 4"]  # where the mask is, and each once


@pytest.mark.parametrize("values", [[np.nan] * 3, [0.0] * 3, [-1.0, -2.0, -3.0]])
def test_maps_of_nothing(values):
    image = plots.plot_map(values, INSIDE).axes[0].images[-1]
    assert image.get_clim() == (0, 1)


def test_pvalues_are_logarithms_below_a_level():
    figure = plots.plot_pvalues([0.001, 0.05, 0.06], INSIDE, level=0.05)
    above = drawn(figure.axes[0])[-1]
    np.testing.assert_allclose(above[INSIDE], [3, -np.log10(0.05), np.nan])
    assert "p of at most 0.05" in texts(figure)


def test_a_panel_of_a_figure():
    whole = plots.new_figure()
    left, right = whole.subfigures(1, 2)
    assert plots.plot_map([1, 2, 3], INSIDE, figure=left) is left
    assert left.axes and not right.axes


def test_an_affine_is_drawn_by_nilearn():
    nibabel = pytest.importorskip("nibabel")
    pytest.importorskip("nilearn")
    from matplotlib import pyplot as plt

    inside = np.ones((6, 5, 4), dtype=np.uint8)
    inside[0] = 0
    mask = nibabel.Nifti1Image(inside, np.diag([3.0, 3, 3, 1]))
    values = np.linspace(-1, 1, inside.sum())
    values[3], values[5] = np.nan, 0
    before = plt.get_fignums()
    figure = plots.plot_map(values, mask, label="r", title="a map", signed=True)
    assert plt.get_fignums() == before
    slices = [axes.images for axes in figure.axes if len(axes.images) == 2]
    # the mask in grey, and above it the values
    shown = np.concatenate([np.ma.compressed(above.get_array()) for _, above in slices])
    assert {above.get_clim() for _, above in slices} == {(-1, 1)}
    ref = np.float32(values[np.isfinite(values)])
    np.testing.assert_allclose(np.sort(shown), np.sort(ref), atol=1e-11)
    for grey, _ in slices:
        assert set(np.ma.compressed(grey.get_array()).tolist()) <= {0, np.float32(0.15).item()}
    assert "a map (r)" in texts(figure)
    cuts = [text for text in texts(figure) if text.startswith("z=")]
    assert cuts == ["z=0", "z=3", "z=6", "z=9"]
    maskers = pytest.importorskip("nilearn.maskers")
    same = plots.plot_map(values, maskers.NiftiMasker(mask, standardize=None), signed=True)
    for one, other in zip(figure.axes, same.axes, strict=True):
        for image, again in zip(one.images, other.images, strict=True):
            np.testing.assert_array_equal(image.get_array(), again.get_array())


def test_nilearn_draws_what_is_left_of_a_map():
    nibabel = pytest.importorskip("nibabel")
    pytest.importorskip("nilearn")
    affine = np.array([[-2.0, 0, 0, 9], [0, 2, 0, 0], [0, 0, 3, 30], [0, 0, 0, 1]])
    mask = nibabel.Nifti1Image(np.ones((4, 4, 1), np.uint8), affine)
    below = np.where(np.arange(16) % 2, 7.0, np.nan).reshape(4, 4, 1)
    behind = nibabel.Nifti1Image(below, affine)
    # nothing is significant: the background alone
    nothing = plots.plot_map(np.full(16, np.nan), mask, background=behind)
    (image,) = [image for axes in nothing.axes for image in axes.images]
    assert np.ma.max(image.get_array()) == 7 and "z=30" in texts(nothing)
    # what lies below the scale takes its end, and is not left out
    values = np.linspace(-1, 1, 16)
    low = plots.plot_map(values, mask)
    (above,) = [axes.images[1] for axes in low.axes if len(axes.images) == 2]
    drawn = np.sort(np.ma.compressed(above.get_array()))
    np.testing.assert_allclose(drawn, np.maximum(values, 0), atol=1e-7)
    assert above.get_clim() == (0, 1)


# -- alphas ----------------------------------------------------------------------------------


def test_chosen_alphas_are_counted():
    figure = plots.plot_alphas([1.0, 100.0, 100.0, 1e-1], [100, 0.1, 1, 10])
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [1, 1, 0, 2]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.1", "1", "10", "100"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("alpha", "targets")


def test_labels_of_many_alphas_are_thinned():
    alphas = np.logspace(-3, 8, 50)
    axes = plots.plot_alphas(alphas[:3], alphas).axes[0]
    assert len(axes.patches) == 50 and len(axes.get_xticks()) <= 7
    for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True):
        assert float(label.get_text()) == pytest.approx(alphas[tick], rel=1e-2)


def test_curves_of_targets():
    scores = np.array([[0.1, 0.5, 0.3], [0.4, 0.2, 0.3], [0.2, 0.1, 0.9]])
    figure = plots.plot_cv_curves(scores, [1, 100, 10], targets=[1, 2], label="r2")
    (axes,) = figure.axes
    curves = axes.lines[::2]
    # alphas in order
    np.testing.assert_array_equal(curves[0].get_ydata(), [0.5, 0.1, 0.2])
    np.testing.assert_array_equal(curves[1].get_ydata(), [0.3, 0.9, 0.3])
    rings = [line.get_xydata().tolist() for line in axes.lines[1::2]]
    assert rings == [[[0, 0.5]], [[1, 0.9]]]
    assert {"target 1", "target 2"} <= set(texts(figure)) and axes.get_ylabel() == "r2"


def test_curves_choose_from_worst_to_best():
    scores = np.arange(20.0)[None, :] * np.ones((3, 1))
    labels = [
        line.get_label() for line in plots.plot_cv_curves(scores, [1, 2, 3]).axes[0].lines[::2]
    ]
    assert labels[0] == "target 0" and labels[-1] == "target 19" and len(labels) == 5


def test_the_curve_of_one_alpha_for_all():
    axes = plots.plot_cv_curves([0.1, 0.3], [1, 10]).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [0.1, 0.3])
    assert axes.lines[0].get_label() == "all targets"


# -- nulls -----------------------------------------------------------------------------------


def test_the_threshold_is_where_p_reaches_the_level():
    rng = np.random.default_rng(0)
    for m, level in [(99, 0.05), (19, 0.05), (1000, 0.01), (37, 0.2), (20, 0.1)]:
        null_max = rng.standard_normal(m)
        threshold = plots.fwer_threshold(null_max, level)
        scores = np.concatenate([null_max, null_max + 1e-9])
        np.testing.assert_array_equal(scores > threshold, fwer_pvalues(scores, null_max) <= level)
    assert plots.fwer_threshold(np.ones(18), 0.05) is None


def test_the_null_of_the_maximum():
    rng = np.random.default_rng(0)
    scores, null_max = rng.standard_normal(300), 3 + rng.random(99)
    scores[0] = np.nan
    axes = plots.plot_null_max(scores, null_max, level=0.05, label="r2").axes[0]
    first, second = axes.containers
    ref, _ = np.histogram(scores[1:], bins=59, density=True)
    np.testing.assert_allclose([bar.get_height() for bar in first], ref)
    assert second[0].get_x() == pytest.approx(null_max.min())
    assert axes.lines[0].get_xdata()[0] == np.sort(null_max)[-5]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [
        "observed",
        "null, maximum over targets",
        f"FWER 0.05: {np.sort(null_max)[-5]:.3g}",
    ]
    two = plots.plot_null_max(scores, null_max[:5], two_sided=True, label="r").axes[0]
    assert min(bar.get_x() for bar in two.containers[0]) >= 0
    assert two.get_xlabel() == "|r|" and not two.lines


def test_the_null_of_a_target():
    null = np.linspace(-1, 1, 50)
    axes = plots.plot_null(0.9, null, pvalue=0.02, label="r", name="target 3").axes[0]
    assert sum(bar.get_height() for bar in axes.containers[0]) == 50
    assert axes.lines[0].get_xdata()[0] == 0.9 and axes.get_title() == "target 3"
    assert "observed 0.9, p 0.02" in texts(axes.figure)


def test_scores():
    scores = np.array([0.0, 0.1, 0.5, np.nan])
    axes = plots.plot_scores(scores, label="r2").axes[0]
    assert sum(bar.get_height() for bar in axes.containers[0]) == 3
    assert axes.lines[0].get_xdata()[0] == 0.1


def test_regions_beside_their_null():
    rng = np.random.default_rng(0)
    scores, null = rng.random(7), rng.standard_normal((200, 7))
    scores[6] = np.nan
    rois = np.array(["V2", "V1", "V2", "", None, "V1", "V1"], dtype=object)
    figure = plots.plot_rois(scores, null, rois, label="r")
    (axes,) = figure.axes
    members = [[1, 5], [0, 2]]
    observed, permuted = [c for c in axes.containers if hasattr(c, "patches")]
    np.testing.assert_allclose(
        [bar.get_width() for bar in observed], [scores[some].mean() for some in members]
    )
    means = [null[:, some].mean(axis=1) for some in members]
    np.testing.assert_allclose([bar.get_width() for bar in permuted], [m.mean() for m in means])
    whiskers = np.array([path.vertices[:, 0] for path in axes.collections[0].get_paths()])
    np.testing.assert_allclose(whiskers, np.percentile(means, (2.5, 97.5), axis=1).T)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["V1 (2)", "V2 (2)"] and axes.yaxis_inverted()


def test_similarity_of_maps():
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((3, 50))
    maps[1] = -2 * maps[0] + 1
    maps[2, :10] = np.nan
    figure = plots.plot_similarity(maps, ["a", "b", "c"])
    (r,) = (image.get_array() for image in figure.axes[0].images)
    np.testing.assert_allclose(r, np.corrcoef(maps[:, 10:]))
    assert figure.axes[0].images[0].get_clim() == (-1, 1)
    assert figure.axes[0].texts[1].get_text() == "-1.00"
    assert figure.axes[0].get_title() == "Spatial correlation, 40 voxels"
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["a", "b", "c"]


# -- of all ----------------------------------------------------------------------------------


def every_picture():
    rng = np.random.default_rng(0)
    null = rng.standard_normal((99, 12))
    rois = [f"a region of a long name {i % 10}" for i in range(12)]
    yield plots.plot_map(rng.random(3), INSIDE, title="a map of some length", label="r2")
    yield plots.plot_pvalues(rng.random(3), INSIDE)
    yield plots.plot_alphas([1.0, 2.0], np.logspace(-9, 9, 40))
    yield plots.plot_cv_curves(rng.random((9, 7)), np.logspace(-9, 9, 9))
    yield plots.plot_scores(null[0], label="neg_mean_squared_error")
    yield plots.plot_null_max(null[0], null.max(axis=1), label="r2", title="a scheme")
    yield plots.plot_null(0.3, null[:, 0], pvalue=0.3)
    yield plots.plot_rois(null[0], null, rois)
    yield plots.plot_similarity(null[:12], [f"sub-{i:02d}" for i in range(12)])


def test_no_text_covers_another():
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for figure in every_picture():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        for axes in figure.axes[:1]:
            for axis, edge in ((axes.xaxis, "x"), (axes.yaxis, "y")):
                if not axes.axison:
                    continue
                labels = [label for label in axis.get_ticklabels() if label.get_text()]
                if any(label.get_rotation() for label in labels):
                    continue
                boxes = [label.get_window_extent(canvas.get_renderer()) for label in labels]
                spans = sorted((getattr(b, f"{edge}0"), getattr(b, f"{edge}1")) for b in boxes)
                for (_, end), (start, _) in pairwise(spans):
                    assert end <= start + 1, axes.get_title()


def test_pyplot_is_left_alone_and_threads_may_draw(tmp_path):
    from matplotlib import pyplot as plt

    before, failed = plt.get_fignums(), []

    def draw(name):
        try:
            for i, figure in enumerate(list(every_picture())[:4]):
                figure.savefig(tmp_path / f"{name}-{i}.png")
        except Exception as error:  # pragma: no cover
            failed.append(error)

    threads = [threading.Thread(target=draw, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and plt.get_fignums() == before
    for i in range(4):
        a, b = ((tmp_path / f"{name}-{i}.png").read_bytes() for name in "ab")
        assert a == b


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.plot_map([1.0], INSIDE), r"shape \(1,\), but the mask.* 3 voxels"),
        (lambda: plots.plot_map(np.ones((2, 3)), INSIDE), "one map"),
        (lambda: plots.plot_map([1.0], INSIDE.tolist()), "3 voxels"),
        (lambda: plots.plot_map([1.0, 2.0], [True, True]), "2 voxels; give"),
        (lambda: plots.plot_cv_curves(np.ones((2, 3)), [1]), "there are 1 alphas"),
        (lambda: plots.plot_cv_curves(np.ones((1, 3)), [1], [3]), r"targets=\[3\].*0 and 2"),
        (lambda: plots.plot_cv_curves(np.ones((1, 9)), [1], range(8)), "one to 7"),
        (lambda: plots.plot_scores([np.nan]), "scores holds no number"),
        (lambda: plots.plot_rois([1.0], np.ones((2, 2)), ["a"]), "must agree"),
        (lambda: plots.plot_rois([1.0], np.ones((2, 1)), [None]), "names no region"),
        (lambda: plots.plot_similarity(np.ones((1, 4))), "two or more"),
        (lambda: plots.plot_similarity(np.full((2, 4), np.nan)), "fewer than two voxels"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"matplotlib, which is not installed.*ridgemm\[plot\]"):
        plots.plot_scores([1.0, 2.0])
