"""The public API, for notebooks and programs: `import s3ray` has all of its names.

Only `run` needs Ray, and that only if something is left to run.
"""
