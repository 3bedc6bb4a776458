"""What a file is that a reader did not expect, by its content, and what helps."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shlex
import zipfile
from dataclasses import dataclass
from pathlib import Path

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

_HEAD = 1024
_DOWNLOAD = "download it again"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file in words; what makes the expected one of it."""

    what: str
    command: str = ""  # shell, unpacks it
    load: str = ""  # Python, reads it
    imported: bool = False  # `s3ray data import` reads it
    remedy: str = ""  # if neither would help

    @property
    def failed(self) -> bool:
        """Whether it is what a failed download leaves."""
        return self.remedy == _DOWNLOAD

    def for_original(self) -> str:
        """What helps where a published file was expected."""
        return f"unpack it: {self.command}" if self.command else self.remedy or "get the original file"

    def for_npz(self, path: Path) -> str:
        """What helps where an `.npz` of the user's was expected."""
        if self.command:
            return f"unpack it: {self.command}"
        if self.imported:
            made = path.with_suffix(".npz") if path.suffix != ".npz" else path.with_name(f"{path.stem}_imported.npz")
            return f"run s3ray data import {shlex.quote(str(path))} --output {shlex.quote(str(made))}"
        if not self.load:
            again = "write it again with numpy.savez"
            return again if self.remedy in ("", _DOWNLOAD) else self.remedy
        target = str(path.with_suffix(".npz"))
        return (
            f"in Python, x = {self.load.format(repr(str(path)))}, then "
            f"numpy.savez({target!r}, train_A=…, train_B=…, train_label=…, and the same for valid_ and test_)"
        )


# (magic, in words, suffix, command after the file has it, how Python looks inside)
_Opener = type[gzip.GzipFile] | type[bz2.BZ2File] | type[lzma.LZMAFile]
_PACKED: tuple[tuple[bytes, str, str, str, _Opener | None], ...] = (
    (b"\x1f\x8b", "gzip", ".gz", "gunzip {0}", gzip.GzipFile),
    (b"BZh", "bzip2", ".bz2", "bunzip2 {0}", bz2.BZ2File),
    (b"\xfd7zXZ\x00", "xz", ".xz", "unxz {0}", lzma.LZMAFile),
    (b"\x28\xb5\x2f\xfd", "zstd", ".zst", "unzstd --rm {0}", None),
    (b"\x04\x22\x4d\x18", "lz4", ".lz4", "lz4 -d --rm {0}", None),
    (b"7z\xbc\xaf\x27\x1c", "7z", ".7z", "7z x {0}", None),
    (b"Rar!", "rar", ".rar", "unrar x {0}", None),
)
_JSON = Kind("JSON", load="json.load(open({0}))")
_PICKLE = Kind("a pickle", load="pickle.load(open({0}, 'rb'))")
_MAGICS: tuple[tuple[bytes, Kind], ...] = (
    (HDF5_MAGIC, Kind("an HDF5 file", imported=True)),
    (b"MATLAB 7.3", Kind("a MATLAB 7.3 file", imported=True)),
    (b"MATLAB", Kind("a MATLAB file", imported=True)),
    (b"\x93NUMPY", Kind("a single array of numpy.save", imported=True)),
    (b"PAR1", Kind("a Parquet file", imported=True)),
    (b"ARROW1", Kind("an Arrow file", load="pandas.read_feather({0})")),
    (b"FEA1", Kind("a Feather file", load="pandas.read_feather({0})")),
    (b"version https://git-lfs", Kind("a pointer of Git LFS, not the file", remedy="run git lfs pull where it is")),
)
# What only the name tells.
_SUFFIXES = {
    ".csv": Kind("CSV", imported=True),
    ".tsv": Kind("TSV", imported=True),
    ".json": _JSON,
    ".jsonl": Kind("JSON lines", load="pandas.read_json({0}, lines=True)"),
    ".mat": Kind("a MATLAB file", imported=True),
    ".safetensors": Kind("a safetensors file", load="safetensors.numpy.load_file({0})"),
}
_TEXT = Kind("text", imported=True)


def foreign(path: Path) -> Kind | None:
    """What kind of file `path` is, as far as its first bytes tell; None if they tell nothing.

    An archive that holds something of no use is described by that.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    return _packed(path, head) or _by_content(head, path.suffix)


def _by_content(head: bytes, suffix: str) -> Kind | None:
    if not head:
        return Kind("an empty file", remedy=_DOWNLOAD)
    for magic, kind in _MAGICS:
        if head.startswith(magic):
            return kind
    if head.startswith(b"\x80") and head[1:2] <= b"\x05":
        torch = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19" in head[:32]
        return Kind("a file of torch.save", load="torch.load({0})") if torch else _PICKLE
    if not head.strip(b"\x00"):
        return Kind("nothing but zeros", remedy=_DOWNLOAD)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<"):
        return Kind("a web page", remedy=_DOWNLOAD)
    if suffix.lower() in _SUFFIXES:
        return _SUFFIXES[suffix.lower()]
    if b"\x00" in head or sum(byte < 9 or 13 < byte < 32 for byte in head):
        return None
    if text.startswith((b"{", b"[")):
        return _JSON
    return _SUFFIXES[".csv"] if b"," in head or b"\t" in head or b";" in head else _TEXT


def _packed(path: Path, head: bytes) -> Kind | None:
    if head.startswith(b"PK"):
        return _zipped(path)
    if head[257:262] == b"ustar":
        return Kind("a tar archive", _unpack(path, ".tar", "tar -xf {0}"))
    for magic, what, suffix, command, opened in _PACKED:
        if not head.startswith(magic):
            continue
        inside = b""
        if opened:
            try:
                with opened(path) as file:
                    inside = file.read(_HEAD)
            except (OSError, EOFError, ValueError, lzma.LZMAError):
                return Kind(f"a damaged {what} archive", remedy=_DOWNLOAD)
            if inside[257:262] == b"ustar":
                return Kind(f"a tar archive in {what}", _unpack(path, f".tar{suffix}", "tar -xf {0}"))
        content = _by_content(inside, "") if opened else None
        if content and content.remedy:
            return Kind(f"a {what} archive of {content.what}", remedy=content.remedy)
        return Kind(f"a {what} archive", _unpack(path, suffix, command))
    return None


def _zipped(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member.filename for member in archive.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError):
        return Kind("a damaged zip archive", remedy=_DOWNLOAD)
    if any(name.endswith("data.pkl") for name in members) and any(name.endswith("version") for name in members):
        return Kind("a file of torch.save", load="torch.load({0})")
    if members and all(name.endswith(".npy") for name in members):
        return Kind("an .npz", remedy=f"give it as your own data: --dataset NAME={path}")
    if "[Content_Types].xml" in members:
        return Kind("a spreadsheet", remedy="save its sheet as .csv, which s3ray data import reads")
    if not members:
        return Kind("an empty zip archive", remedy=_DOWNLOAD)
    if len(members) == 1 and path.suffix != ".zip":
        # It is to take the archive's own place, whatever its name inside.
        return Kind("a zip archive", _unpack(path, ".zip", f"unzip -p {{0}} {shlex.quote(members[0])} > {{1}}"))
    return Kind("a zip archive", _unpack(path, ".zip", "unzip {0}"))


def _unpack(path: Path, suffix: str, command: str) -> str:
    """Shell that leaves what is inside in the archive's place. In `command` 0 is the archive, 1 the path."""
    name = shlex.quote(path.name)
    packed = name if path.name.endswith(suffix) else shlex.quote(path.name + suffix)
    move = "" if packed == name else f"mv {name} {packed} && "
    there = command.format(packed, name)
    return f"{move}{there}" if path.parent == Path() else f"(cd {shlex.quote(str(path.parent))} && {move}{there})"


def unsplit_hdf5(path: Path) -> bool:
    """Whether an HDF5 file looks like computational sequences, which are not split; needs no h5py.

    Names of groups stand in the file as plain text, those of the first ones near its start.
    """
    with path.open("rb") as file:
        head = file.read(1 << 20)
    return b"intervals" in head and b"features" in head and b"train" not in head
