"""`python -m golongrl.queue`."""

from golongrl.queue.command import main

main()
