"""`python -m rllib_cikd`: the `rllib` command."""

import sys

from rllib_cikd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
