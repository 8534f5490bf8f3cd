"""`python -m authsvc`."""

from authsvc.cli import main

main(prog_name="python -m authsvc")
