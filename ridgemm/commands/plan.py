"""Say what a fit or a permutation test would take.

Nothing is computed and nothing is written. It takes the options of "fit" and, with
--n-permutations, those of "permute".

examples:
  ridgemm plan X.npy Y.npy --alphas 1e0:1e5:11
  ridgemm plan X.npy Y.npy --groups runs.npy --scheme within --n-permutations 10000
  ridgemm plan X.npy Y.npy --memory-limit 2GB --json > plan.json
"""

import argparse

from ridgemm.commands import data, options, output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    options.add_data(parser)
    options.add_model(parser)
    options.add_test(parser, None)
    options.add_output(parser)


def run(given: argparse.Namespace) -> int:
    """Run the verb."""
    from ridgemm.planning import plan

    model = options.make_model(given)
    problem = data.open_problem(given, None)
    nested = {} if given.n_permutations is None else options.permutation_options(given)
    forecast = plan(
        model,
        problem.X,
        problem.Y,
        groups=problem.groups,
        confounds=problem.confounds,
        level=given.alpha_level,
        **nested,
    )
    output.show_report(given, forecast, forecast.as_dict())
    return 0
