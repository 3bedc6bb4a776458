"""A dataset out of fields: choices, samples, labels, splits, missing values; each step said in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3ray.data.arrays import check_missing_rule, check_names, from_arrays
from s3ray.data.dataset import SPLITS, Dataset
from s3ray.data.facts import told_missing
from s3ray.data.importing import choose, samples
from s3ray.data.importing.choose import Choice, Wanted
from s3ray.data.importing.fields import Field, Item, check_memory, joined, unique_names
from s3ray.data.importing.labels import encoded
from s3ray.data.importing.matching import naming_column, shared_ids
from s3ray.data.importing.samples import Rows, Steps
from s3ray.data.importing.split import (
    DEFAULT_SHARES,
    VALID_SHARE,
    Draw,
    Names,
    cut,
    cut_valid,
    shared_groups,
    shares_in,
    sizes,
)
from s3ray.data.names import listed, split_named
from s3ray.errors import UserError

_COPIES = 3  # of chosen values that are held at once


def build(name: str, place: str, fields: Sequence[Field], wanted: Wanted, notes: Sequence[str] = ()) -> Dataset:
    """The dataset that fields hold, as `wanted` reads them.

    What was done is in its facts (`imported`: `said`, `warnings`).

    Args:
        name: of the dataset, a plain word.
        place: what was read, as complaints name it.
        notes: what there is to say of how files were read.

    Raises:
        UserError: it cannot be read so; one sentence.
    """
    return _Build(name, place, fields, wanted, notes).dataset()


@dataclass(slots=True)
class _Modality:
    rows: NDArray[Any]
    lengths: NDArray[np.int64]
    names: tuple[str, ...]  # of the features, where all have names
    said: str


class _Build:
    def __init__(self, name: str, place: str, fields: Sequence[Field], wanted: Wanted, notes: Sequence[str]) -> None:
        self.name, self.place, self.wanted, self.notes = name, place, wanted, list(notes)
        if not fields:
            raise UserError(f"{place}: holds no arrays; give a file that does")
        self.items, self.splits = joined(unique_names(fields))
        self.warnings: list[str] = []
        self.rows: dict[str, Rows] = {}
        self.keys: list[Choice] = []  # the columns that name samples and times
        self.ids: tuple[str, ...] = ()  # of the samples, where they have names
        self.counts: tuple[int, ...] = ()  # samples of each part

    def dataset(self) -> Dataset:
        wanted = self.wanted
        if wanted.time and not wanted.sample:
            raise UserError(
                f"{wanted.option('time')} {wanted.time}: orders a sample's rows; name those with "
                f"{wanted.option('sample')}"
            )
        if wanted.fill not in (None, "mean"):
            raise UserError(f"{wanted.option('fill')} {wanted.fill}: is not known; write mean, or leave it out")
        check_missing_rule(wanted.missing, wanted.option("missing"))
        if not 0 <= wanted.seed < 2**32:
            raise UserError(f"{wanted.option('seed')} {wanted.seed}: must be a whole number from 0 to {2**32 - 1}")
        self._read_tables()
        label = self._one("label", wanted.label) or self._label()
        raw = self._labels(label)
        codes, class_names = encoded(self._at("label", wanted.label, label), raw, label.names)
        group = self._one("group", wanted.group)
        split = self._one("split-column", wanted.split_column)
        if split is None and not self.splits and not wanted.shares:
            split = choose.guessed_split(self.items)
        taken = [choice for choice in (label, group, split, *self.keys) if choice]
        chosen = self._modalities(taken)
        check_names(self.place, list(chosen))
        needed = {c.item.name: sum(part.nbytes for part in c.item.parts) for of in chosen.values() for c in of}
        check_memory(self.place, _COPIES * sum(needed.values()), "what is chosen")
        modalities = {name: self._values(name, choices) for name, choices in chosen.items()}
        for name, one in modalities.items():
            self._refuse_classes(name, one, codes)
        groups = None if group is None else self._words("group", wanted.group, group)
        names, how = self._split(split, codes, groups)
        self._check_classes(names, codes, class_names)
        missing = [text for name, one in modalities.items() if (text := self._missing(name, one, names))]
        of_splits = {s: self._samples(modalities, codes, names == s) for s in SPLITS}
        data = from_arrays(self.name, **of_splits, missing=wanted.missing)
        if data.lacking:
            missing.append(told_missing(data.lacking, {name: len(split) for name, split in data.splits.items()}))
        said = [
            self._said_of_labels(label, codes, class_names),
            "; ".join(f"{name}: {one.said}" for name, one in modalities.items()),
            f"split {sizes(names)} (train/valid/test): {how}",
            "; ".join(missing) or "no value is missing",
            *self.notes,
        ]
        left, subject, time = choose.unused(self.items, [*taken, *(c for of in chosen.values() for c in of)])
        if left:
            said.append(f"not used: {listed(left, shown=8)}")
        if subject and groups is None and not self.splits and split is None:
            self.warnings.append(
                f"{subject} looks like groups of samples: {wanted.option('group')} {subject} keeps each in one split"
            )
        if time and not wanted.sample:
            self.warnings.append(
                f"{time} looks like time, and every row was read as a sample: if rows are steps, give "
                f"{wanted.option('sample')} COLUMN {wanted.option('time')} {time}"
            )
        if groups is not None:
            self.warnings += shared_groups(names, groups)
        facts = {
            **data.facts,
            "warnings": [*data.facts["warnings"], *self.warnings],
            "imported": {"said": said, "warnings": self.warnings},
        }
        if class_names != [str(i) for i in range(len(class_names))]:
            facts["label_names"] = class_names
        return replace(data, facts=facts)

    def _at(self, option: str, given: str | None, choice: Choice) -> str:
        return f"{self.wanted.option(option)} {given}" if given else f"{self.place}: {choice}"

    # Tables and the names of samples.

    def _read_tables(self) -> None:
        tables = [item for item in self.items if item.first.kind == "table"]
        keys = [part.strip() for part in (self.wanted.sample or "").split(",") if part.strip()]
        known = {name for item in tables for name in item.first.columns}
        named = [("sample", name) for name in keys] + ([("time", self.wanted.time)] if self.wanted.time else [])
        for option, name in named:
            if name not in known:
                choose.one_column(name, self.wanted.option(option), self.items)
                raise UserError(f"{self.wanted.option(option)} {name}: is no column of a table; name one")
        folders = [item for item in self.items if item.first.ids]
        shared = {} if keys or folders else shared_ids(tables, self.wanted.option("sample"))
        told_apart = list(dict.fromkeys(name for names in shared.values() for name in names))
        for item in tables:
            mine = [name for name in keys if name in item.first.columns]
            if keys and len(mine) < len(keys) and mine:
                lacking = next(name for name in keys if name not in mine)
                raise UserError(
                    f"{self.wanted.option('sample')} {self.wanted.sample}: {item.first.file} has no column {lacking}; "
                    f"add it"
                )
            if not keys and folders:
                mine = told_apart = [naming_column(item, self._folder_ids(folders[0]), self.wanted.option("sample"))]
            mine = mine or shared.get(item.name, [])
            if told_apart:
                self.notes = list(dict.fromkeys([*self.notes, f"samples are told apart by {listed(told_apart)}"]))
            time = self.wanted.time if self.wanted.time in item.first.columns else None
            self.rows[item.name] = samples.rows_of(item, mine, time, self.wanted.option("sample"))
            names = item.first.columns
            self.keys.append(Choice(item, tuple(i for i, name in enumerate(names) if name in mine or name == time)))

    @staticmethod
    def _folder_ids(item: Item) -> tuple[str, ...]:
        return tuple(name for part in item.parts for name in part.ids)

    def _ids_of(self, item: Item) -> tuple[str, ...]:
        return self.rows[item.name].ids if item.name in self.rows else self._folder_ids(item)

    def _place_of(self, item: Item, option: str, *, some: bool = False) -> NDArray[np.int64] | None:
        """Where each sample stands in an item; None where it stands at its own number.

        Args:
            some: samples may not be there; their place is -1.
        """
        ids = self._ids_of(item)
        if not ids and self.ids:
            self._say_order(item.name)
        if not ids or not self.ids or ids == self.ids:
            return None
        places, odd = samples.same_ids(self.ids, ids, some=some)
        if places is None:
            raise UserError(
                f"{option}: {item.first.file} has other samples than the labels have ({len(ids)} against "
                f"{len(self.ids)} samples, such as {listed(odd, shown=2)}); give the same to all"
            )
        return places

    def _ids_beside(self) -> tuple[str, ...]:
        """Names for labels without any: those of what else has names, if that has one order."""
        named = [item for item in self.items if len(self._ids_of(item)) == sum(self.counts)]
        if not named:
            return ()
        self.ids = self._ids_of(named[0])
        for other in named[1:]:
            places, _ = samples.same_ids(self.ids, self._ids_of(other))
            if places is not None and (np.diff(places) < 0).any():
                raise UserError(
                    f"{self.place}: the labels have no names of samples, and {named[0].first.file} and "
                    f"{other.first.file} have them in different order; add them to the labels"
                )
        self._say_order("labels")
        return self.ids

    def _say_order(self, what: str) -> None:
        """That what has no names was joined to what has some by its position."""
        by_files = any(item.first.ids for item in self.items)
        more = " …" if len(self.ids) > 3 else ""
        order = f"in the order of {'file names' if by_files else 'samples'}: {', '.join(self.ids[:3])}{more}"
        self.notes = list(dict.fromkeys([*self.notes, f"{what} taken {order}"]))

    # Choices.

    def _one(self, option: str, what: str | None) -> Choice | None:
        return None if what is None else choose.one_column(what, self.wanted.option(option), self.items)

    def _label(self) -> Choice:
        if label := choose.guessed_label(self.items):
            return label
        raise UserError(
            f"{self.place}: what are the labels? it holds {choose.contents(self.items)}; give "
            f"{choose.example(self.items, self.wanted, 'label')}"
        )

    def _modalities(self, taken: Sequence[Choice]) -> dict[str, list[Choice]]:
        if self.wanted.modalities:
            chosen = {}
            for name, what in self.wanted.modalities.items():
                words = [what] if isinstance(what, str) else list(what)
                option = f"{self.wanted.option('modality')} {name}={','.join(words)}"
                meant = [choice for word in words for choice in choose.resolve(word, option, self.items)]
                for choice in meant:
                    self._refuse_taken(option, choice, taken)
                chosen[name] = [choose.whole_table(choice, option, self.counts, taken) for choice in meant]
            return chosen
        chosen = choose.guessed_modalities(self.items, self.counts, taken)
        if not chosen:
            for item in self.items:
                if item.first.kind == "O":
                    item.first.load()  # says why not
            raise UserError(
                f"{self.place}: what are the modalities? it holds {choose.contents(self.items)}; give "
                f"{choose.example(self.items, self.wanted, 'modality')}"
            )
        return chosen

    def _refuse_taken(self, option: str, choice: Choice, taken: Sequence[Choice]) -> None:
        """Labels, groups and times must not be inputs."""
        for other in taken:
            if other.item.name != choice.item.name or choice.item.first.kind == "list":
                continue
            if other.positions is None or (choice.positions is None and choice.item.first.kind != "table"):
                raise UserError(f"{option}: holds what stands for something else; leave it out")
            both = set(choice.positions or ()) & set(other.positions or ())
            if both:
                column = choice.item.first.columns[min(both)] if choice.item.first.columns else min(both)
                raise UserError(f"{option}: takes in {column}, which stands for something else; leave it out")

    # Values.

    def _labels(self, label: Choice) -> NDArray[Any]:
        """(n,) or one-hot (n, K); fixes how many samples there are and their names."""
        option = self._at("label", self.wanted.label, label)
        item = label.item
        if label.positions == () and item.first.labels:
            self.ids = self._folder_ids(item)
            self.counts = tuple(len(part.labels) for part in item.parts)
            return np.array([one for part in item.parts for one in part.labels])
        if item.name in self.rows:
            rows = self.rows[item.name]
            self.counts = rows.parts
            self.ids = rows.ids or self._ids_beside()
            return rows.of_samples(option, label.positions or (0,))
        if item.first.kind in ("list", "O"):
            raise UserError(f"{option}: holds {item}, not one class per sample; name other labels")
        arrays = [_labels_of(np.asarray(part.load()), label.positions) for part in item.parts]
        self.counts = tuple(len(array) for array in arrays)
        if any(array.ndim > 2 for array in arrays) or len({array.shape[1:] for array in arrays}) > 1:
            raise UserError(f"{option}: is {item}, not one class per sample; name other labels")
        self.ids = self._ids_beside()
        return np.concatenate(arrays)

    def _words(self, option: str, given: str | None, choice: Choice) -> NDArray[np.str_]:
        """(n,): one word per sample."""
        named = self._at(option, given, choice)
        if choice.item.name in self.rows:
            values = self.rows[choice.item.name].of_samples(named, choice.positions or (0,))
            if (places := self._place_of(choice.item, named)) is not None:
                values = values[places]
        else:
            values = np.concatenate([np.ravel(np.asarray(part.load())) for part in choice.item.parts])
        if values.ndim != 1 or len(values) != sum(self.counts):
            raise UserError(f"{named}: has shape {values.shape} for {sum(self.counts)} samples; give one per sample")
        missing = np.array([value is None or value != value for value in values])
        if missing.any():
            raise UserError(f"{named}: is missing for {int(missing.sum())} samples; drop those first")
        return np.array([str(value).strip() for value in values])

    def _values(self, name: str, choices: Sequence[Choice]) -> _Modality:
        option = f"{self.wanted.option('modality')} {name}"
        parts = [self._values_of(name, option, choice) for choice in choices]
        (rows, lengths), _ = parts[0]
        for choice, ((_, other), _) in zip(choices, parts, strict=True):
            if not np.array_equal(other, lengths):
                raise UserError(f"{option}: {choice} has other steps than {choices[0]}; choose what has the same")
        if len(parts) > 1:
            rows = np.concatenate([values for (values, _), _ in parts], axis=1)
        rows, lengths = samples.without_nan(rows, lengths)
        if len(lengths) != sum(self.counts):
            raise UserError(
                f"{option}: {choices[0].item.name} has {len(lengths)} samples, the labels are {sum(self.counts)}; give "
                f"the same samples"
            )
        count = f"{rows.shape[1]} feature{'s' if rows.shape[1] != 1 else ''}"
        said = f"{count} from {', '.join(str(choice) for choice in choices)}"
        if (lengths > 1).any():
            unequal = lengths.min() < lengths.max()
            said += f", {lengths.min()} to {lengths.max()} steps, padded" if unequal else f", {lengths[0]} steps"
        turned = any("turned" in text for _, text in parts)
        names = () if turned else tuple(name for choice in choices for name in choice.names)
        return _Modality(
            rows,
            lengths,
            names if len(names) == rows.shape[1] else (),
            ", ".join([said, *(text for _, text in parts if text)]),
        )

    def _values_of(self, name: str, option: str, choice: Choice) -> tuple[Steps, str]:
        item, said = choice.item, ""
        if item.name in self.rows:
            if not self.rows[item.name].ids and choose.is_turned(choice, self.counts):
                return self._turned(choice, option)
            values = samples.of_table(self.rows[item.name], choice.positions or (), option)
        elif item.first.kind == "list":
            every: list[Any] = [one for part in item.parts for one in part.load()]
            if choice.positions is not None:
                every = [one[:, list(choice.positions)] for one in every]
            values = samples.of_list(every, option)
        else:
            self._check_parts(option, item)
            arrays, said = samples.oriented(item, self.counts, option)
            if choice.positions is not None:
                arrays = [array[..., list(choice.positions)] for array in arrays]
            lengths = samples.lengths_beside(self.items, choice, name, self.counts)
            values, padding = samples.of_arrays(arrays, lengths, option)
            said = ", ".join(filter(None, (said, padding)))
        # A sample of which a table of values has no row lacks the modality.
        if (places := self._place_of(item, option, some=item.name in self.rows)) is not None:
            values = _reordered(values, places)
        return values, said

    def _refuse_classes(self, name: str, one: _Modality, codes: NDArray[np.int64]) -> None:
        """UserError if features that do not change within any class tell the classes apart, alone or as one-hot do.

        Of the classes of which samples have the modality.
        """
        of_row = np.repeat(codes, one.lengths)
        fixed = np.arange(one.rows.shape[1])
        for label in range(codes.max() + 1):
            of_class = one.rows[of_row == label]
            if not len(of_class):
                continue
            fixed = fixed[(of_class[:, fixed] == of_class[0, fixed]).all(axis=0)]
        firsts = one.rows[np.unique(of_row, return_index=True)[1]][:, fixed]
        told = len(firsts) > 1 and len(np.unique(firsts, axis=0)) == len(firsts)
        if fixed.size and told and len(codes) >= 2 * len(firsts):
            telling = fixed[(firsts != firsts[0]).any(axis=0)].tolist()
            named = listed([one.names[i] if one.names else f"feature {i}" for i in telling], shown=4)
            raise UserError(
                f"{self.wanted.option('modality')} {name}: {named} {'tell' if telling[1:] else 'tells'} the class of "
                f"every sample; leave it out ({self.wanted.option('modality')} {name}=… of the others)"
            )

    def _turned(self, choice: Choice, option: str) -> tuple[Steps, str]:
        """Of a table with a column per sample; a table of labels that holds the columns' names tells their order."""
        (rows, _) = samples.of_table(self.rows[choice.item.name], choice.positions or (), option)
        values = rows.T, np.ones(rows.shape[1], dtype=np.int64)
        for other in self.rows.values():
            for name in other.item.first.columns:
                ids = (
                    [str(value) for value in other.frame[name].iloc[other.order]] if other.parts == self.counts else []
                )
                if ids and (places := samples.same_ids(ids, choice.names)[0]) is not None:
                    return _reordered(values, places), f"was features × samples, turned, columns told by {name}"
        return values, "was features × samples, turned"

    def _check_parts(self, option: str, item: Item) -> None:
        if len(item.parts) != len(self.counts):
            raise UserError(
                f"{option}: {item.name} is not in every split, as the labels are; give it to all of them"
                if len(self.counts) > 1
                else f"{option}: {item.name} is split and the labels are not; name labels of every split"
            )

    # Splits.

    def _split(
        self, column: Choice | None, codes: NDArray[np.int64], groups: NDArray[np.str_] | None
    ) -> tuple[Names, str]:
        given, origin = self._given_split(column)
        of_groups = f", no {self.wanted.group} in two" if groups is not None else ""
        if given is None:
            shares = (
                shares_in(self.wanted.shares, self.wanted.option("split")) if self.wanted.shares else DEFAULT_SHARES
            )
            names, said = cut(codes, shares, self._draw(), groups)
            how = "by groups" if groups is not None else "at random, by class"
            return names, "; ".join([f"{how}{of_groups}, seed {self.wanted.seed}", *said])
        if self.wanted.shares:
            raise UserError(f"{self.wanted.option('split')}: {self.place} is split already ({origin}); leave it out")
        found = set(given.tolist())
        if not {"train", "test"} <= found:
            lacking = "train" if "train" not in found else "test"
            raise UserError(
                f"{self.place}: is split ({origin}) but has no {lacking} samples, only {' and '.join(sorted(found))}; "
                f"add them, or name as test what is held out, and a validation split is cut from train"
            )
        if "valid" in found:
            return given, f"kept, {origin}"
        names, said = cut_valid(given, codes, self._draw(), groups)
        share = f"a validation split of {100 * VALID_SHARE:.0f}% cut from train{of_groups}, seed {self.wanted.seed}"
        return names, "; ".join([f"kept, {origin}", share, *said])

    def _draw(self) -> Draw:
        return Draw(self.wanted.seed, self.place, f"{self.wanted.option('group')} {self.wanted.group}")

    def _given_split(self, column: Choice | None) -> tuple[Names | None, str]:
        if column is not None:
            words = self._words("split-column", self.wanted.split_column, column)
            names = [split_named(word) for word in words]
            if unknown := [word for word, name in zip(words, names, strict=True) if name is None]:
                place = self._at("split-column", self.wanted.split_column, column)
                raise UserError(f"{place}: holds {str(unknown[0])!r}; write train, valid or test for every sample")
            return np.array(names, dtype="U5"), f"by {column}"
        if len(self.counts) > 1:
            return np.repeat(np.array(self.splits, dtype="U5"), self.counts), "by names"
        for item in self.items:
            if item.first.splits:
                places = self._place_of(item, item.name)
                names_of = np.array(item.first.splits, dtype="U5")
                return names_of if places is None else names_of[places], "by folders"
        return None, ""

    def _check_classes(self, names: Names, codes: NDArray[np.int64], class_names: Sequence[str]) -> None:
        known = set(codes[names == "train"].tolist())
        for split in ("valid", "test"):
            if unknown := sorted(set(codes[names == split].tolist()) - known):
                what = listed([class_names[i] for i in unknown], shown=3)
                raise UserError(
                    f"{self.place}: class {what} is in {split} and not in train; give train examples of every class or "
                    f"drop those samples"
                )

    # What is missing.

    def _missing(self, name: str, one: _Modality, names: Names) -> str:
        """What was filled, in words; UserError where nothing says how."""
        if one.rows.dtype.kind != "f":
            return ""
        bad = ~np.isfinite(one.rows)
        if not bad.any():
            return ""
        of_row = np.repeat(np.arange(len(one.lengths)), one.lengths)
        hit = np.zeros(len(one.lengths), dtype=bool)
        hit[of_row[bad.any(axis=1)]] = True
        worst = int(bad.sum(axis=0).argmax())

        def named(feature: int) -> str:
            return one.names[feature] if one.names else f"feature {feature}"

        where = ", ".join(f"{int(hit[names == split].sum())} of {split}" for split in SPLITS)
        found = (
            f"{name}: {int(bad.sum())} of {bad.size} values are NaN or infinite, in {int(hit.sum())} samples "
            f"({where}), most in {named(worst)}"
        )
        fill = self.wanted.option("fill")
        if self.wanted.fill is None:
            raise UserError(f"{self.place}: {found}; drop them, or fill in train's means with {fill} mean")
        of_train = one.rows[(names == "train")[of_row]].astype(np.float64)
        known = np.isfinite(of_train)
        counts = known.sum(axis=0)
        if (lacking := np.flatnonzero((counts == 0) & bad.any(axis=0))).size:
            raise UserError(
                f"{self.place}: {name}: {named(int(lacking[0]))} has no value in train, so no mean; leave it out"
            )
        means = np.where(known, of_train, 0).sum(axis=0) / np.maximum(counts, 1)
        one.rows = np.where(bad, means, one.rows).astype(one.rows.dtype)
        return f"{found}: set to train's means"

    # The end.

    def _said_of_labels(self, label: Choice, codes: NDArray[np.int64], class_names: Sequence[str]) -> str:
        counts = np.bincount(codes)
        each = listed([f"{name}: {n}" for name, n in zip(class_names, counts, strict=True)], shown=6)
        origin = "folders" if label.positions == () else str(label)
        return f"{len(codes)} samples of {self.place}, {len(class_names)} classes from {origin}: {each}"

    @staticmethod
    def _samples(
        modalities: Mapping[str, _Modality], codes: NDArray[np.int64], inside: NDArray[np.bool_]
    ) -> tuple[dict[str, Any], NDArray[np.int64]]:
        return {name: _of_split(one, inside) for name, one in modalities.items()}, codes[inside]


def _labels_of(array: NDArray[Any], positions: Sequence[int] | None) -> NDArray[Any]:
    if positions is not None:
        array = array[..., list(positions)]
    if array.size == max(array.shape, default=1):
        return array.reshape(-1)
    if array.ndim == 2 and array.dtype.kind in "fiub":
        ones = array.astype(np.float64)
        if (ones.sum(axis=0) == 1).all() and not (ones.sum(axis=1) == 1).all():
            return array.T
    return array


def _reordered(values: Steps, places: NDArray[np.int64]) -> Steps:
    """The samples at these places, without steps at -1."""
    rows, lengths = values
    starts = np.cumsum(lengths) - lengths
    order = np.concatenate([np.arange(starts[i], starts[i] + lengths[i] * (i >= 0)) for i in places])
    return rows[order], np.where(places >= 0, lengths[places], 0)


def _of_split(one: _Modality, inside: NDArray[np.bool_]) -> Any:
    """(n, features), (n, steps, features), or an array per sample."""
    rows, lengths = one.rows[np.repeat(inside, one.lengths)], one.lengths[inside]
    if not len(lengths) or (one.lengths == 1).all():
        return rows
    if (lengths == lengths[0]).all() and lengths[0]:  # an array without steps would not tell how wide they are
        return rows.reshape(len(lengths), lengths[0], -1)
    return np.split(rows, np.cumsum(lengths)[:-1])
