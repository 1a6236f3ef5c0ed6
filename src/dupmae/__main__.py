"""Run the `dupmae` command as `python -m dupmae`, which `torchrun -m dupmae` starts once a process."""

import sys

from dupmae.cli import main

if __name__ == "__main__":
    sys.exit(main())
