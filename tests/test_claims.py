"""Several processes in one run folder: each piece is done by one of them, and the result is that of
one process, whoever is killed, stopped or late.
"""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgemm import InputError, claims, clean, verify
from ridgemm.claims import CLAIMS, Claims, left_behind
from ridgemm.journal import Journal
from ridgemm.private import private_name
from tests.faults import SHARED, TRACE, permute, problem
from tests.marks import slow

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 300  # seconds until what does not happen is taken for a deadlock

posix = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")


def wait_for(happened):
    end = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {PATIENCE} s")
        time.sleep(0.01)


def take(process, *pieces):
    """Of pieces, those that a process gets."""
    free = process.free(pieces, process.survey())
    return [piece for piece, claim in free.items() if process.take(claim)]


def of_a_dead_process(lease):
    return re.sub(r"-\d+-\w+-", f"-{os.getpid()}-t1-", lease)


def of_another_host(lease):
    return re.sub(r"~[0-9a-f]{8}-", "~00000000-", lease)


def leave_claims(run, lease, *pieces, generation=0):
    """Claims of a process that is no more, with its lease."""
    (run / CLAIMS).mkdir(exist_ok=True)
    (run / CLAIMS / lease).write_text("7\n")
    for piece in pieces:
        (run / CLAIMS / f"{piece}.{generation}").write_text(lease)


# -- claims -----------------------------------------------------------------------------------


def test_one_process_gets_a_piece(tmp_path):
    with Claims(tmp_path) as a, Claims(tmp_path) as b:
        assert take(a, "null_0_0_10", "null_64_0_10") == ["null_0_0_10", "null_64_0_10"]
        assert take(b, "null_0_0_10", "null_0_10_20") == ["null_0_10_20"]
        # to be done again, after a worker of its own was killed
        assert take(a, "null_0_0_10") == ["null_0_0_10"]


def test_the_last_to_leave_takes_everything_away(tmp_path):
    with Claims(tmp_path) as a:
        take(a, "null_0_0_10")
        with Claims(tmp_path) as b:
            take(b, "null_0_10_20")
        # what others may still look at stays
        assert (tmp_path / CLAIMS / "null_0_0_10.0").exists()
    assert list(tmp_path.iterdir()) == []


def test_claims_of_a_process_that_failed_are_free_at_once(tmp_path):
    with Claims(tmp_path) as b:
        a = Claims(tmp_path)

        def fail():
            with a:
                take(a, "null_0_0_10")
                assert take(b, "null_0_0_10") == []
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert take(b, "null_0_0_10") == ["null_0_0_10"]


def test_claims_of_a_dead_process_of_this_host_are_free_at_once(tmp_path):
    leave_claims(tmp_path, of_a_dead_process(private_name("lease")), "null_0_0_10")
    with Claims(tmp_path) as a, Claims(tmp_path) as b:
        assert take(a, "null_0_0_10") == ["null_0_0_10"]
        assert take(b, "null_0_0_10") == []


@posix
def test_a_process_that_nobody_has_buried_is_dead(tmp_path):
    program = "import sys; from ridgemm.private import private_name; print(private_name('lease'))"
    program += "; sys.stdout.flush(); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, **pipes) as process:
        leave_claims(tmp_path, process.stdout.readline().strip(), "null_0_0_10")
        with Claims(tmp_path) as a:
            assert take(a, "null_0_0_10") == []
            process.kill()
            # killed, and not waited for yet
            wait_for(lambda: take(a, "null_0_0_10") == ["null_0_0_10"])


def test_claims_of_another_host_lapse_when_nobody_renews_them(tmp_path, monkeypatch):
    lease = of_another_host(private_name("lease"))
    leave_claims(tmp_path, lease, "null_0_0_10")
    now = [1000.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    with Claims(tmp_path) as a:
        assert take(a, "null_0_0_10") == []
        now[0] += claims.LEASE - 1
        # its clock may say anything: what counts is that the content is another
        (tmp_path / CLAIMS / lease).write_text("8\n")
        os.utime(tmp_path / CLAIMS / lease, (0, 0))
        with pytest.MonkeyPatch.context() as patch:
            # a day without a change is no news: this is about leases
            patch.setattr(claims, "is_abandoned", lambda path: False)
            assert take(a, "null_0_0_10") == []
            now[0] += claims.LEASE - 1
            assert take(a, "null_0_0_10") == []
            now[0] += 2
            assert take(a, "null_0_0_10") == ["null_0_0_10"]


def test_a_claim_that_names_nobody_lapses_too(tmp_path, monkeypatch):
    # killed between making and writing it
    (tmp_path / CLAIMS).mkdir()
    (tmp_path / CLAIMS / "null_0_0_10.0").touch()
    now = [1000.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    with Claims(tmp_path) as a:
        assert take(a, "null_0_0_10") == []
        now[0] += claims.LEASE + 1
        assert take(a, "null_0_0_10") == ["null_0_0_10"]


def test_a_lease_is_renewed(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    with Claims(tmp_path, beat=0.02) as a, Claims(tmp_path) as b:
        take(a, "null_0_0_10")
        lease = tmp_path / CLAIMS / a.lease
        for _ in range(3):
            assert take(b, "null_0_0_10") == []
            seen = lease.read_text()
            wait_for(lambda seen=seen: lease.read_text() not in ("", seen))
            now[0] += claims.LEASE - 1


@given(data=st.data(), n=st.integers(2, 5), dead=st.integers(0, 3))
def test_exactly_one_takes_a_lapsed_claim_over(data, n, dead, tmp_path_factory):
    """Looks and takes of processes in any order: nobody takes a claim away from a living one."""
    run = tmp_path_factory.mktemp("run")
    for generation in range(dead):
        lease = of_a_dead_process(private_name("lease"))
        leave_claims(run, lease, "null_0_0_10", generation=generation)
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(Claims(run)) for _ in range(n)]
        steps = data.draw(st.permutations([i for i in range(n) for _ in ("look", "take")]))
        free, winners = {}, []
        for i in steps:
            if i not in free:
                free[i] = processes[i].free(["null_0_0_10"], processes[i].survey())
            elif any(processes[i].take(claim) for claim in free[i].values()):
                winners.append(i)
        assert len(winners) == 1
    shutil.rmtree(run)


def test_threads_at_once(tmp_path):
    pieces = [f"null_0_{i}_{i + 1}" for i in range(50)]
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(Claims(tmp_path)) for _ in range(4)]
        found, start = [[] for _ in processes], threading.Barrier(4)

        def work(i):
            start.wait()
            found[i] = take(processes[i], *pieces)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(itertools.chain(*found)) == sorted(pieces)


def test_one_goes_first_and_the_others_wait_for_it(tmp_path):
    order, inside = [], threading.Event()
    with Claims(tmp_path) as a, Claims(tmp_path) as b:

        def second():
            inside.wait()
            with b.first("factors") as mine:
                order.append(("b", mine))

        thread = threading.Thread(target=second)
        thread.start()
        with a.first("factors") as mine:
            inside.set()
            time.sleep(0.2)
            order.append(("a", mine))
        thread.join()
        # once it is released it is there for whoever comes
        with b.first("factors") as mine:
            order.append(("b", mine))
    assert order == [("a", True), ("b", False), ("b", True)]


def test_another_goes_first_if_the_first_fails(tmp_path):
    with Claims(tmp_path) as b:
        with pytest.raises(ZeroDivisionError), Claims(tmp_path) as a, a.first("factors"):
            raise ZeroDivisionError
        with b.first("factors") as mine:
            assert mine


def test_a_process_that_was_taken_for_lost_goes_on(tmp_path):
    with Claims(tmp_path) as a:
        shutil.rmtree(tmp_path / CLAIMS)
        assert take(a, "null_0_0_10") == ["null_0_0_10"]
        with Claims(tmp_path) as b:
            assert take(b, "null_0_0_10") == []


def test_what_is_left_behind_is_named_and_cleaned(tmp_path):
    out = tmp_path / "out"
    permute(out)
    lease = of_a_dead_process(private_name("lease"))
    leave_claims(out, lease, "null_0_0_10", "observed_0_-1_0")
    names = {lease, "null_0_0_10.0", "observed_0_-1_0.0"}
    found = verify(out)
    assert found.sound and {path.name for path in found.unfinished} == names
    assert {path.name for path in clean(out).removed} == names
    assert not (out / CLAIMS).exists()
    with Claims(out) as a:
        take(a, "null_0_0_10")
        # of a process at work
        assert left_behind(out) == [] and clean(out).removed == ()
        assert take(a, "null_0_0_10") == ["null_0_0_10"]


# -- a run in this process --------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"keep_null": True}, {"null": "heldout"}], ids=str)
def test_a_finished_run_is_returned_at_once(options, tmp_path, monkeypatch):
    expected = permute(tmp_path, **options)

    def forbidden(*arguments):
        raise AssertionError("factors were asked for")

    monkeypatch.setattr("ridgemm.nullrun.FactorMaker", forbidden)
    assert permute(tmp_path, **options) == expected
    with pytest.raises(AssertionError, match="factors"):
        permute(tmp_path, **{**options, "n_permutations": 13})
    assert not (tmp_path / CLAIMS).exists()


def test_a_tail_is_asked_of_a_finished_run(tmp_path):
    permute(tmp_path / "a", keep_null=True)
    found = permute(tmp_path / "a", tail="gpd")
    assert found == permute(tmp_path / "b", tail="gpd")


def test_claims_of_a_killed_run_are_taken_at_once(tmp_path):
    expected = permute(tmp_path / "whole")
    out = tmp_path / "out"
    permute(out)
    pieces = ["_".join(path.stem.split("_")[:4]) for path in (out / "parts").glob("null_*")]
    assert len(pieces) > 1
    for path in (out / "parts").glob("null_*"):
        path.unlink()
    names = [*pieces, "factors", "result", "check"]
    leave_claims(out, of_a_dead_process(private_name("lease")), *names)
    assert permute(out) == expected
    assert not (out / CLAIMS).exists()


def test_parts_without_the_scores_they_are_of_are_done_again(tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    expected = permute(whole, keep_null=True)
    permute(out, keep_null=True)
    # what a run that was killed before its end leaves, but for the files of scores
    (out / "null.npy").unlink()
    (out / "manifest.json").unlink()
    assert permute(out, keep_null=True) == expected
    names = [sorted(path.name for path in (run / "parts").iterdir()) for run in (out, whole)]
    assert names[0] == names[1]


def test_the_first_request_counts(tmp_path):
    """Of two that begin at once, the second continues what the first has begun."""
    request = {"asked": {"seed": 0}, "chosen": {"tile": 64}}
    exists = Path.exists

    def begun_meanwhile(path):
        found = exists(path)
        if path.name == "request.json" and not found:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Path, "exists", exists)
                Journal(tmp_path).open({**request, "chosen": {"tile": 32}})
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "exists", begun_meanwhile)
        assert Journal(tmp_path).open(request) == {"tile": 32}
    with pytest.raises(InputError, match="seed"):
        Journal(tmp_path).open({**request, "asked": {"seed": 1}})


# -- processes --------------------------------------------------------------------------------

PROGRAM = """
import json, sys, time
from pathlib import Path
from ridgemm import claims
from ridgemm.journal import Journal
from tests.faults import permute
from tests.test_claims import CASES, wide

out, name, n_jobs, pause, lease, go = Path(sys.argv[1]), *sys.argv[2:7]
claims.LEASE, claims.BEAT = float(lease), float(lease) / 10
count, publish = {}, Journal.publish

def counted(self, kind, *rest):
    publish(self, kind, *rest)
    count[kind] = count.get(kind, 0) + 1
    time.sleep(float(pause))

Journal.publish = counted
print("ready", flush=True)
while go != "-" and not Path(go).exists():
    time.sleep(0.001)
found = permute(out, wide(), n_jobs=int(n_jobs), **CASES[name])
print(json.dumps({"count": count, "bits": {key: raw.hex() for key, raw in found.items()}}))
"""

MANY = {"n_permutations": 96}
CASES = {
    "refit": MANY,
    "kept null": {**MANY, "keep_null": True},
    "heldout": {**MANY, "null": "heldout"},
    "shared": {**MANY, "model": SHARED},
    "trace": {**MANY, "model": TRACE},
    "stop": {**MANY, "stop": "besag-clifford"},
}


def wide():
    return problem(n=30, p=4, t=150)


class Run:
    """A process that does the same as others, in the same folder."""

    def __init__(self, out, name, n_jobs=1, pause=0.0, lease=claims.LEASE, go="-"):
        arguments = [out, name, n_jobs, pause, lease, go]
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM, *map(str, arguments)],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def ready(self):
        assert self.process.stdout.readline() == "ready\n", self.process.stderr.read()

    def end(self):
        """Parts that it published, by kind, and the bits of its result."""
        shown, errors = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, errors
        answer = json.loads(shown.splitlines()[-1])
        return answer["count"], {k: bytes.fromhex(v) for k, v in answer["bits"].items()}

    def kill(self, signum=signal.SIGKILL):
        self.process.send_signal(signum)

    def close(self):
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def running(out, name, n, **options):
    runs = [Run(out, name, **options) for _ in range(n)]
    try:
        for run in runs:
            run.ready()
        yield runs
    finally:
        for run in runs:
            run.close()


def alone(tmp_path, name):
    return permute(tmp_path / "alone", wide(), **CASES[name])


@posix
@pytest.mark.parametrize(
    "name", ["kept null", *map(slow, ("refit", "heldout", "shared", "trace", "stop"))]
)
def test_four_processes_one_of_them_killed(name, tmp_path):
    expected, out, go = alone(tmp_path, name), tmp_path / "out", tmp_path / "go"
    with running(out, name, 4, pause=0.02, go=go) as runs:
        # at the very same time, nothing being there yet
        go.touch()
        wait_for(lambda: len(list((out / "parts").glob("*_*.npy"))) >= 12)
        assert not (out / "manifest.json").exists()
        runs[0].kill()
        ends = [run.end() for run in runs[1:]]
    assert [bits == expected for _, bits in ends] == [True] * 3
    counts = [sum(count.values()) for count, _ in ends]
    n_parts = len(list((out / "parts").glob("*_*.npy")))
    assert min(counts) > 0
    # some are the killed one's, few are done twice
    assert sum(counts) <= n_parts + 4
    assert not (out / CLAIMS).exists()
    assert verify(out).sound and verify(out).unfinished == ()


@posix
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_with_workers(name, tmp_path):
    expected, out = alone(tmp_path, name), tmp_path / "out"
    with running(out, name, 2, n_jobs=2) as runs:
        ends = [run.end() for run in runs]
    assert [bits == expected for _, bits in ends] == [True] * 2


@posix
@pytest.mark.slow
def test_a_process_that_is_stopped_is_taken_for_lost(tmp_path):
    expected, out = alone(tmp_path, "kept null"), tmp_path / "out"
    with running(out, "kept null", 2, pause=0.02, lease=3) as runs:
        wait_for(lambda: len(list((out / "parts").glob("null_*"))) >= 4)
        runs[0].kill(signal.SIGSTOP)
        _, bits = runs[1].end()
        assert bits == expected
        # woken up, it finds that all is done, and ends in the same bits
        runs[0].kill(signal.SIGCONT)
        _, bits = runs[0].end()
        assert bits == expected
    assert not (out / CLAIMS).exists()


@posix
def test_a_process_that_joins_late_does_nothing(tmp_path):
    expected, out = alone(tmp_path, "refit"), tmp_path / "alone"
    with running(out, "refit", 1) as (run,):
        count, bits = run.end()
    assert count == {} and bits == expected
