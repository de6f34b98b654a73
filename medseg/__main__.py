"""``python -m medseg``: the command line, where the ``medseg`` script is not on the path."""

from medseg.cli import main

main()
