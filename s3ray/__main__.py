"""`python -m s3ray` is `s3ray`."""

from s3ray.cli import main

main()
