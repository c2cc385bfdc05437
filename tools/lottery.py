"""The driver as a script: `python tools/lottery.py --config=FILE --workdir=DIR` is `tf-lottery run`."""

import sys

from tf_lottery import cli

sys.exit(cli.main(["run", *sys.argv[1:]]))
