"""From the store's rows to tables and figures."""

from s3ray.results.collect import Results, collect, references
from s3ray.results.statistics import best_ratios, summarize

__all__ = ["Results", "best_ratios", "collect", "references", "summarize"]
