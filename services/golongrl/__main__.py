"""`python -m golongrl` is `golongrl`."""

from golongrl.cli import main

main()
