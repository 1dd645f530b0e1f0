"""`python -m moa_graph` is the command `moa`."""

from moa_graph.cli.app import main

if __name__ == "__main__":
    main()
