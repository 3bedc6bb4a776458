"""s3ray: distributed sweeps on Ray for S3 (Specialization, Selection, Sparsification, arXiv 2605.03348)."""

__version__ = "0.1.0"
