"""`python -m wattshift_cluster.cli`: the command without its script."""

import sys

from wattshift_cluster.cli.main import main

sys.exit(main())
