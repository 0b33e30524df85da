"""Files packed into every kind of container, and archives that mean harm."""

import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Files = Mapping[str, bytes]


def pack_tar(path: Path, files: Files) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def pack_zip(path: Path, files: Files, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def pack_parquet(path: Path, files: Files, rows: int = 2) -> Path:
    """As Hugging Face writes a dataset with a column of images, ``rows`` of them in a row group."""
    images = [{"bytes": data, "path": name} for name, data in files.items()]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"label": list(range(len(files))), "image": pa.array(images, kind)})
    pq.write_table(table, path, row_group_size=rows)
    return path


def pack_arrow(path: Path, files: Files, rows: int = 2, stream: bool = True) -> Path:
    """As ``Dataset.save_to_disk`` of Hugging Face writes it, or in Arrow's file format; ``rows`` in a record batch."""
    images = [{"bytes": data, "path": name} for name, data in files.items()]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"label": list(range(len(files))), "image": pa.array(images, kind)})
    with pa.OSFile(str(path), "wb") as file:
        write = pa.ipc.new_stream if stream else pa.ipc.new_file
        with write(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=rows)
    return path


def pack_hdf5(path: Path, files: Files) -> Path:
    """One file a row, as bytes of varying length."""
    with h5py.File(path, "w") as file:
        held = file.create_dataset("images", (len(files),), h5py.vlen_dtype(np.uint8))
        for number, data in enumerate(files.values()):
            held[number] = np.frombuffer(data, np.uint8)
    return path


def tar_header(name: bytes, size: int | bytes = 0, kind: bytes = b"0", link: bytes = b"") -> bytes:
    """One block of a tar archive, its checksum right whatever it says. A ``size`` in bytes stands as it is."""
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    head = name.ljust(100, b"\0")[:100] + b"0000644\0" + b"0000000\0" * 2 + field.ljust(12, b"\0") + b"0" * 11 + b"\0"
    head += b" " * 8 + kind + link.ljust(100, b"\0") + b"ustar\x0000" + b"\0" * 247
    return head[:148] + b"%06o\0 " % sum(head[:512]) + head[156:512]


def tar_member(name: bytes, data: bytes, kind: bytes = b"0") -> bytes:
    """A header and its data, padded."""
    return tar_header(name, len(data), kind) + data + b"\0" * (-len(data) % 512)


def pax_member(records: Mapping[str, str]) -> bytes:
    """An extended header with these records, for the member behind it."""
    body = b""
    for key, value in records.items():
        line = f" {key}={value}\n".encode()
        length = len(line) + 1
        while length != len(line) + len(str(length)):
            length = len(line) + len(str(length))
        body += str(length).encode() + line
    return tar_member(b"pax", body, b"x")


def raw_zip(entries: Sequence[tuple[bytes, bytes, dict[str, int]]], lie: Mapping[str, int] | None = None) -> bytes:
    """A zip archive of stored members; each entry's last part sets fields of the directory to something else."""
    body, directory = b"", b""
    for name, data, changed in entries:
        import zlib

        told = {"flags": 0, "method": 0, "crc": zlib.crc32(data), "packed": len(data), "size": len(data)}
        told |= {"offset": len(body), "attributes": 0} | changed
        local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, told["flags"], told["method"], 0, 0, told["crc"],
                            told["packed"], told["size"], len(name), 0)  # fmt: skip
        directory += struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 0x314, 20, told["flags"], told["method"], 0, 0,
                                 told["crc"], told["packed"], told["size"], len(name), 0, 0, 0, 0,
                                 told["attributes"], told["offset"]) + name  # fmt: skip
        body += local + name + data
    end = {"count": len(entries), "bytes": len(directory), "offset": len(body)} | dict(lie or {})
    count = min(end["count"], 0xFFFF)
    last = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, end["bytes"], end["offset"], 0)
    return body + directory + last
