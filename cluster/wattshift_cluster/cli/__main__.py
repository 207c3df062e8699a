"""`python -m wattshift_cluster.cli`: the command without its script."""

from wattshift_cluster.cli.main import main

if __name__ == "__main__":
    main()
