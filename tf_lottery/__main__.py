"""`python -m tf_lottery` is the command `tf-lottery`."""

import sys

from tf_lottery import cli

sys.exit(cli.main())
