"""Run the command `moa` with `python -m moa_graph`."""

from moa_graph.cli.main import main

if __name__ == "__main__":
    main()
