"""The tables and figures, one file each: an `EXHIBIT` in a module of this folder is all that it takes."""

from __future__ import annotations

from collections.abc import Sequence

from s3ray.errors import UserError, nearest
from s3ray.registry import declared
from s3ray.results.collect import Results
from s3ray.results.exhibit import Exhibit

EXHIBITS: dict[str, Exhibit] = declared(__name__, "EXHIBIT")


def asked_for(sweep: str, names: Sequence[str]) -> list[Exhibit]:
    """The exhibits that a sweep names, in its order, then those that every sweep has.

    Raises:
        UserError: it names one that there is not.
    """
    for name in names:
        if name not in EXHIBITS:
            raise UserError(f"sweep {sweep}: exhibits has {name!r}, which there is not; {nearest(name, EXHIBITS)}")
    everywhere = (exhibit.name for exhibit in EXHIBITS.values() if exhibit.everywhere)
    return [EXHIBITS[name] for name in dict.fromkeys((*names, *everywhere))]


def answers(results: Results) -> list[str]:
    """What its exhibits come to, a sentence or two each."""
    asked = asked_for(results.info["sweep"], results.info["exhibits"])
    return [answer for exhibit in asked if (answer := exhibit.finding(exhibit.seen(results)))]
