"""``python -m ridgemm``: the command line."""

import sys

from ridgemm.commands import main

if __name__ == "__main__":
    sys.exit(main())
