"""verify and clean: all damage is found and named, and nothing of others is touched."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ridgemm import InputError, RidgeCV, StorageError, clean, load, verify
from ridgemm.__main__ import main
from ridgemm.private import private_name
from ridgemm.store import MANIFEST
from tests.faults import fit, permute, problem, watching

ROOT = Path(__file__).resolve().parents[1]
SOLVERS = ("primal-statistics", "primal-products", "svd-products", "dual-products")


def make_cache(folder):
    """Entries of every kind."""
    for solver in SOLVERS:
        fit(folder, solver=solver)
    permute(
        folder.with_name("run-of-operators"), model=dict(solver="dual-operators", cache_dir=folder)
    )
    shutil.rmtree(folder.with_name("run-of-operators"))


def make_run(folder):
    permute(folder, keep_null=True)


def make_model(folder):
    RidgeCV(cv=2).fit(*problem()).save(folder)


MAKE = {"cache": make_cache, "run": make_run, "model": make_model}


@pytest.fixture(scope="module")
def sound_folders(tmp_path_factory):
    parent = tmp_path_factory.mktemp("sound")
    for kind, make in MAKE.items():
        make(parent / kind)
    return parent


@pytest.fixture
def copied(sound_folders, tmp_path):
    """A function that copies the sound folder of a kind."""

    def copy(kind):
        shutil.copytree(sound_folders / kind, tmp_path / kind)
        return tmp_path / kind

    return copy


def tree(folder):
    """Every path under a folder, and the contents and dates of files."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def of_a_dead_process(prefix):
    return re.sub(r"-\d+-\w+-", f"-{os.getpid()}-t1-", private_name(prefix))


# -- verify -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKE)
def test_a_sound_folder(kind, copied, capsys):
    folder = copied(kind)
    before = tree(folder)
    found = verify(folder)
    assert found.sound and found.problems == () and found.unfinished == ()
    assert found.folder == folder
    # every array there is has a checksum
    assert found.n_sound == len(list(folder.rglob("*.npy"))) > 4
    assert main(["verify", str(folder)]) == 0
    assert f"{found.n_sound} files" in capsys.readouterr().out
    assert clean(folder).removed == ()
    assert tree(folder) == before


def test_the_cache_has_every_kind_of_entry(sound_folders):
    kinds = {path.name.rsplit("-", 1)[0] for path in (sound_folders / "cache").iterdir()}
    assert kinds == {"primal-quadratic", "primal-products", "svd", "dual", "gram", "operator"}


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def garble(path):
    path.write_bytes(path.read_bytes()[:-10] + b"\xa5" * 10)


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = [cut, empty, flip, garble, replace_by_folder]


@pytest.mark.parametrize("damage", [*DAMAGES, os.unlink])
@pytest.mark.parametrize("kind", MAKE)
def test_damage_of_every_file_is_reported(kind, damage, copied, capsys):
    folder = copied(kind)
    if kind == "cache":
        one_of_a_kind(folder)
    before = tree(folder)
    for file in sorted(path for path in folder.rglob("*") if path.suffix in (".npy", ".json")):
        # notes of what was planned and what it took; a run without a manifest is not finished
        if file.name in ("plan.json", "took.json") or damage_is_none(kind, damage, file):
            continue
        content = file.read_bytes()
        damage(file)
        now = tree(folder)
        found = verify(folder)
        named = file.parent if file.name == MANIFEST else file
        assert not found.sound, file
        assert any(str(named) in problem for problem in found.problems), found.problems
        assert main(["verify", str(folder)]) == 1
        assert str(named) in capsys.readouterr().out
        assert tree(folder) == now, "verify changed something"
        if file.is_dir():
            file.rmdir()
        file.write_bytes(content)
    assert {name: value and value[0] for name, value in tree(folder).items()} == {
        name: value and value[0] for name, value in before.items()
    }
    assert verify(folder).sound


def one_of_a_kind(cache):
    seen = set()
    for entry in sorted(cache.iterdir()):
        entry_kind = entry.name.rsplit("-", 1)[0]
        if entry_kind in seen:
            shutil.rmtree(entry)
        seen.add(entry_kind)


def damage_is_none(kind, damage, file):
    """What is not there cannot be missed: a part, the request, the manifest of a whole folder."""
    if damage is flip and file.suffix == ".json":
        # the middle of it may be white space, or text that only describes
        return True
    if damage is not os.unlink:
        return False
    return file.parent.name == "parts" or (kind != "cache" and file.suffix == ".json")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"files"', '{"files": []}', "{}"])
@pytest.mark.parametrize("kind", ["cache", "model"])
def test_manifest_of_another_making(kind, text, copied):
    folder = copied(kind)
    inside = next(folder.glob("dual-*")) if kind == "cache" else folder
    (inside / MANIFEST).write_text(text)
    (problem,) = verify(folder).problems
    assert str(inside) in problem
    if kind == "model":
        with pytest.raises(StorageError, match=re.escape(str(folder))):
            load(folder)
    else:
        assert clean(folder).removed == (inside,)
        assert verify(folder).sound


def test_an_entry_that_is_a_file(copied):
    cache = copied("cache")
    entry = next(cache.glob("svd-*"))
    shutil.rmtree(entry)
    entry.write_text("")
    (problem,) = verify(cache).problems
    assert str(entry) in problem
    assert clean(cache).removed == (entry,)
    assert verify(cache).sound


def test_a_run_that_is_not_finished_is_sound(copied):
    run = copied("run")
    (run / MANIFEST).unlink()
    assert verify(run).sound


# -- clean ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cache", "run"])
def test_unfinished_leftovers(kind, copied, capsys):
    folder = copied(kind)
    before = tree(folder)
    left = [folder / of_a_dead_process(prefix) for prefix in ("ridgemm", "scratch", "dual-0")]
    for path in left:
        path.mkdir()
        (path / "half.npy").write_bytes(b"12345")
    if kind == "run":
        left.append(folder / "parts" / of_a_dead_process("part"))
        left[-1].write_bytes(b"123")
    mine = folder / private_name("scratch")
    mine.mkdir()
    found = verify(folder)
    # harmless, and therefore no damage
    assert found.sound and found.unfinished == tuple(sorted(left))
    assert main(["verify", str(folder)]) == 0
    out = capsys.readouterr().out
    assert all(str(path) in out for path in left) and str(mine) not in out
    cleaned = clean(folder)
    assert cleaned.removed == tuple(sorted(left))
    assert cleaned.freed == 15 + 3 * (kind == "run")
    mine.rmdir()
    assert tree(folder) == before


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_entries_go_and_are_built_again(damage, copied):
    cache = copied("cache")
    damaged = sorted(next(cache.glob(f"{kind}-*")) for kind in ("svd", "gram", "primal-quadratic"))
    for entry in damaged:
        damage(sorted(entry.glob("*.npy"))[-1])
    assert len(verify(cache).problems) == 3
    assert clean(cache).removed == tuple(damaged)
    assert verify(cache).sound
    for solver in SOLVERS:
        # no warning: what was damaged is not there
        assert fit(cache, solver=solver) == fit(None, solver=solver)


@pytest.mark.parametrize("damage", [cut, empty, flip])
def test_damaged_parts_go_and_are_computed_again(damage, copied):
    run = copied("run")
    damaged = tuple(sorted((run / "parts").iterdir())[1::3])
    for part in damaged:
        damage(part)
    assert clean(run).removed == damaged
    assert permute(run, keep_null=True) == permute(run.with_name("whole"), keep_null=True)
    assert verify(run).sound


def test_files_that_no_manifest_names(copied):
    cache = copied("cache")
    before = tree(cache)
    extra = next(cache.glob("dual-*")) / "extra.npy"
    extra.write_bytes(bytes(100))
    cleaned = clean(cache)
    assert cleaned.removed == (extra,) and cleaned.freed == 100
    assert tree(cache) == before


def size_of(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def last_used(cache, order):
    """Entries, each of use a minute after the one before, in `order`."""
    entries = sorted(cache.iterdir())
    ordered = [entries[i] for i in order if i < len(entries)]
    for minute, entry in enumerate(ordered):
        os.utime(entry / MANIFEST, (10**9 + 60 * minute,) * 2)
    return ordered


@given(order=st.permutations(range(30)), share=st.floats(0, 1.1))
def test_least_recently_used_go_first(sound_folders, order, share):
    with tempfile.TemporaryDirectory() as parent:
        cache = Path(parent) / "cache"
        shutil.copytree(sound_folders / "cache", cache)
        ordered = last_used(cache, order)
        sizes = [size_of(entry) for entry in ordered]
        limit = max(1, int(share * sum(sizes)))
        # as few as will do
        n_gone = next(n for n in range(len(sizes) + 1) if sum(sizes[n:]) <= limit)
        cleaned = clean(cache, size=limit)
        assert cleaned.removed == tuple(sorted(ordered[:n_gone]))
        assert (cleaned.freed, cleaned.kept) == (sum(sizes[:n_gone]), sum(sizes[n_gone:]))
        assert sorted(cache.iterdir()) == sorted(ordered[n_gone:])
        assert size_of(cache) == cleaned.kept <= limit


@pytest.mark.parametrize("size", ["bytes", "text"])
def test_a_fit_that_finds_an_entry_uses_it(size, copied):
    cache = copied("cache")
    last_used(cache, range(30))
    model = RidgeCV((1.0, 30.0), cv=2, solver="svd-products", cache_dir=cache).fit(*problem())
    assert model.factors_computed_ == 0
    used = sorted(cache.glob("svd-*"))
    n_bytes = sum(map(size_of, used))
    clean(cache, size=n_bytes if size == "bytes" else f"{n_bytes / 1000}KB")
    assert sorted(cache.iterdir()) == used


def test_results_and_parts_stay(copied):
    # a run folder may be the cache as well
    run = copied("run")
    results = tree(run)
    entries = [path.name for path in make_and_list(run)]
    assert entries
    removed = clean(run, size=1).removed
    assert sorted(path.name for path in removed) == entries
    assert tree(run) == results
    assert load(run).pvalues.size == 6


def make_and_list(folder):
    before = set(folder.iterdir())
    fit(folder)
    return sorted(set(folder.iterdir()) - before)


def test_a_saved_model_stays(copied):
    folder = copied("model")
    (folder / "notes.txt").write_text("mine")
    before = tree(folder)
    assert clean(folder, size=1).removed == ()
    assert tree(folder) == before


# -- what belongs to others -------------------------------------------------------------------

HEX = "0123456789abcdef" * 2
FOREIGN = [
    "notes.txt",
    "data.npy",
    "null.npy",
    "null.partial.npy",
    "notes~",
    "~",
    "scratch~1-2-3-4",
    "dual",
    f"dual-{HEX[:-1]}",
    f"dual-{HEX}0",
    f"dual-{HEX.upper()}",
    f"my-dual-{HEX}",
    f"dual-{HEX}.bak",
    f"dual-{HEX}\n",
    f"cholesky-{HEX}",
    "parts",
    "parts/measurement.npy",
    "parts/null_0_0_10.npy",
    "parts/notes.txt",
    "sub/data.npy",
    f"sub/dual-{HEX}/basis.npy",
]


def place(folder, name):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(name.encode() * 50)


def check_untouched(folder, is_foreign):
    before = {name: value for name, value in tree(folder).items() if is_foreign(name)}
    assert before
    verify(folder)
    clean(folder, size=1)
    after = tree(folder)
    assert {name: after.get(name) for name in before} == before


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_making_in_a_cache(name, copied):
    cache = copied("cache")
    place(cache, name)
    problems = verify(cache).problems
    check_untouched(cache, lambda path: path == name)
    assert problems == ()


@given(
    names=st.lists(
        st.text(
            st.characters(exclude_characters="/\0", exclude_categories=["Cs"]),
            min_size=1,
            max_size=40,
        )
        | st.from_regex(
            r"(dual|gram|svd|parts?|null|part|scratch)[-_~][0-9a-f~_.-]{0,40}", fullmatch=True
        ),
        min_size=1,
        max_size=5,
    )
)
def test_files_of_any_name_in_a_cache(sound_folders, names):
    entries = {path.name for path in (sound_folders / "cache").iterdir()}
    with tempfile.TemporaryDirectory() as parent:
        cache = Path(parent) / "cache"
        shutil.copytree(sound_folders / "cache", cache)
        for name in names:
            assume(name not in (".", "..", MANIFEST, "request.json"))
            assume(not re.fullmatch(r"[a-z-]+-[0-9a-f]{32}", name))
            place(cache, name)
        check_untouched(cache, lambda path: path.split("/")[0] not in entries)


@pytest.mark.parametrize("name", ["notes.txt", "data.npy", "prediction_9.npy", "sub/data.npy"])
def test_a_file_of_another_making_in_a_run(name, copied):
    run = copied("run")
    place(run, name)
    check_untouched(run, lambda path: True)


@pytest.mark.parametrize("name", ["parts/notes.txt", "parts/measurement.npy", "parts/null_a.npy"])
def test_a_file_of_another_making_among_parts(name, copied):
    run = copied("run")
    place(run, name)
    check_untouched(run, lambda path: True)
    # and a run that is continued leaves it there
    before = tree(run)[name]
    permute(run, keep_null=True)
    assert tree(run)[name] == before


def test_a_link_in_the_place_of_an_entry(copied, tmp_path):
    cache, outside = copied("cache"), tmp_path / "outside"
    entry = next(cache.glob("dual-*"))
    outside.mkdir()
    moved = outside / "moved"
    shutil.move(entry, moved)
    (moved / "mine.npy").write_bytes(b"mine")
    entry.symlink_to(moved)
    before = tree(outside)
    verify(cache)
    clean(cache)
    clean(cache, size=1)
    assert tree(outside) == before


# -- names that lead outside ------------------------------------------------------------------

OUTSIDE = st.sampled_from(
    [
        "../outside/secret.npy",
        "../../outside/secret.npy",
        "../../../outside/secret.npy",
        "sub/../../../outside/secret.npy",
        "{outside}/secret.npy",
        "/{outside}/secret.npy",
        "file://{outside}/secret.npy",
        "./../../outside/secret.npy",
        "..\\..\\outside\\secret.npy",
        "../../outside/secret.npy\0.npy",
        "../../outside/secret",
        "../../outside",
        "..",
        ".",
        "",
        "/",
        "~/secret.npy",
        "C:\\secret.npy",
        "\udc80.npy",
        "a" * 300 + ".npy",
    ]
)
NAMES = (
    OUTSIDE
    | st.text(max_size=30)
    | st.text(st.sampled_from("./\\ab\0~"), max_size=15).map("{}.npy".format)
)


@given(kind=st.sampled_from(sorted(MAKE)), name=NAMES, key=st.sampled_from(["files", "large"]))
def test_a_manifest_cannot_lead_outside(sound_folders, kind, name, key):
    with tempfile.TemporaryDirectory() as parent:
        outside, folder = Path(parent) / "outside", Path(parent) / "inside" / kind
        outside.mkdir()
        np.save(outside / "secret.npy", np.ones(3))
        name = name.replace("{outside}", str(outside))
        shutil.copytree(sound_folders / kind, folder, ignore=all_but_one_kind)
        before = tree(outside)
        with watching(outside, reading=True) as watch:
            check_name(folder, kind, key, name)
        assert watch.names == []
        assert tree(outside) == before


def all_but_one_kind(folder, names):
    return [name for name in names if re.match(r"(primal-products|svd|dual|gram|operator)-", name)]


def check_name(folder, kind, key, name):
    """Nobody trusts a manifest that names `name`, a file that is not there or not inside."""
    inside = next(folder.glob("primal-quadratic-*")) if kind == "cache" else folder
    add_name(inside / MANIFEST, key, name)
    assert not verify(folder).sound
    if kind == "cache":
        assert clean(folder).removed == (inside,)
        fit(folder, solver="primal-statistics")
        add_name(inside / MANIFEST, key, name)
        with warnings.catch_warnings():
            # a large file is for verify alone
            warnings.simplefilter("ignore" if key == "large" else "error", RuntimeWarning)
            with contextlib.nullcontext() if key == "large" else built_again():
                fit(folder, solver="primal-statistics")
        return
    clean(folder, size=1)
    if key == "large" and Path(name).name == name and name.endswith(".npy"):
        return
    with pytest.raises(StorageError):
        load(folder)


def built_again():
    return pytest.warns(RuntimeWarning, match="built again")


def add_name(path, key, name):
    manifest = json.loads(path.read_text())
    manifest.setdefault(key, {})[name] = "0" * 32
    path.write_text(json.dumps(manifest))


# -- folders that are none, and the command line ----------------------------------------------


def wrong_folders(parent):
    (parent / "empty").mkdir()
    (parent / "file").touch()
    place(parent, "foreign/parts/data.npy")
    place(parent, f"foreign/sub/dual-{HEX}/basis.npy")
    return [parent / name for name in ("empty", "file", "foreign", "missing", "file/below")]


@pytest.mark.parametrize("command", ["verify", "clean"])
def test_a_folder_with_nothing_of_ours(command, tmp_path, capsys):
    for folder in wrong_folders(tmp_path):
        before = tree(tmp_path)
        with pytest.raises(InputError, match=re.escape(str(folder))):
            {"verify": verify, "clean": clean}[command](folder)
        assert main([command, str(folder)]) == 1
        streams = capsys.readouterr()
        assert (
            streams.out == ""
            and streams.err.startswith(f"ridgemm {command}: ")
            and streams.err.count("\n") == 1
        )
        assert tree(tmp_path) == before


@pytest.mark.parametrize("size", ["lots", "-1", "1 parsec", "nan"])
def test_a_size_that_is_none(size, copied, capsys):
    cache = copied("cache")
    before = tree(cache)
    with pytest.raises(InputError, match="size"):
        clean(cache, size=size)
    assert main(["clean", str(cache), f"--size={size}"]) == 1
    assert "size" in capsys.readouterr().err
    assert tree(cache) == before


def test_clean_from_the_command_line(copied, capsys):
    cache = copied("cache")
    ordered = last_used(cache, range(30))
    limit = size_of(cache) - 1
    assert main(["clean", str(cache), "--size", f"{limit}B"]) == 0
    assert f"removed: {ordered[0]}\n" in capsys.readouterr().out
    assert sorted(cache.iterdir()) == sorted(ordered[1:])


def test_as_a_program(copied):
    def exit_code(*arguments):
        command = [sys.executable, "-m", "ridgemm", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120).returncode

    cache = copied("cache")
    assert exit_code("verify", cache) == 0
    empty(next(cache.glob("dual-*/basis.npy")))
    assert exit_code("verify", cache) == 1
    assert exit_code("verify", cache / "missing") == 1
    assert exit_code("verify") == 2
