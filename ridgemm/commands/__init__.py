"""The command line: a module for each verb, and the one place that makes exit codes of errors.

Modules here import what takes long (NumPy, Numba, scikit-learn) inside functions, so that a
``--help`` does not wait for it.
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from ridgemm.commands import clean, demo, fit, permute, plan, predict, report, verify
from ridgemm.commands.options import UsageError
from ridgemm.errors import RidgemmError, one_line

DONE, ERROR, USAGE = 0, 1, 2
_VERBS = (plan, fit, predict, permute, report, verify, clean, demo)
_EPILOG = """\
exit codes:
  0    done
  1    a ridgemm error, in one line on stderr; or verify found damage
  2    the command line cannot be understood
  130  interrupted (SIGINT, Ctrl-C)
  143  terminated (SIGTERM, as batch schedulers send)

After 130 and 143 the same command continues where it was. Results go to stdout, all else to
stderr. "ridgemm VERB --help" has examples.
"""


class Stopped(KeyboardInterrupt):
    """A signal asked to stop: what the library does on Ctrl-C, it does on any."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        ``sys.argv[1:]`` by default.

    Returns
    -------
    int
        0 done, 1 a ridgemm error, 2 a wrong command line, 130 or 143 stopped by a signal.

    Raises
    ------
    SystemExit
        ``--help``, or what argparse cannot understand.

    Examples
    --------
    >>> main(["verify", "no such folder"])
    1
    """
    options = _parser().parse_args(arguments)
    from ridgemm import cores

    cores.ask_for_wide()
    try:
        with _log_on_stderr(options), _stopped_by_signals():
            code = options.run(options)
            sys.stdout.flush()
            return code
    except UsageError as error:
        return _complain(options, f"{error} Try 'ridgemm {options.verb} --help'.", USAGE)
    except RidgemmError as error:
        return _complain(options, one_line(error, 2000), ERROR)
    except KeyboardInterrupt as error:
        signum = getattr(error, "signum", signal.SIGINT)
        again = "; the same command continues where it was" if options.resumes else ""
        name = signal.Signals(signum).name
        return _complain(options, f"stopped by {name}{again}.", 128 + signum)
    except BrokenPipeError:
        # whoever read stdout has gone (| head); the interpreter must not try to flush it again
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ridgemm",
        description="Ridge regression of very many targets, out of core, and its permutation test.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for module in _VERBS:
        name = module.__name__.rpartition(".")[2]
        # the first line of a module is its help, the rest examples
        summary, _, examples = module.__doc__.partition("\n")
        verb = verbs.add_parser(
            name,
            help=summary.rstrip("."),
            description=summary,
            epilog=examples.strip("\n"),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        verb.set_defaults(run=module.run, resumes=False, quiet=False)
        module.add_arguments(verb)
    return parser


def _complain(options: argparse.Namespace, message: str, code: int) -> int:
    print(f"ridgemm {options.verb}: {message}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _log_on_stderr(options: argparse.Namespace) -> Iterator[None]:
    """What the library tells of its steps, and every warning, as a line on stderr."""
    log = logging.getLogger("ridgemm")
    handler, level = logging.StreamHandler(), log.level
    handler.setFormatter(logging.Formatter(f"ridgemm {options.verb}: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.WARNING if options.quiet else logging.INFO)

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        log.warning("warning: %s", one_line(message, 2000))

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Raise `Stopped` at the first SIGINT or SIGTERM; the second one kills."""
    # a shell lets background jobs ignore SIGINT: that stays
    wanted = (signal.SIGINT, signal.SIGTERM)
    signums = [signum for signum in wanted if signal.getsignal(signum) is not signal.SIG_IGN]

    def stop(signum: int, _: FrameType | None) -> None:
        for other in signums:
            signal.signal(other, signal.SIG_DFL)
        raise Stopped(signum)

    try:
        before = {signum: signal.signal(signum, stop) for signum in signums}
    except ValueError:
        # not the main thread: whoever called has the signals
        yield
        return
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
