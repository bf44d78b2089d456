"""SBD's masks in MATLAB files."""

import struct
import zlib
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from dataloaders.prepare.pictures import BadFile

_MAX_FILE = 16 << 20
_MAX_INFLATED = 64 << 20
_HEADER, _COMPRESSED = 128, 15


def read_sbd_mask(path: Path) -> np.ndarray:
    """``GTcls.Segmentation`` of a file of SBD, uint8 (H, W).

    Raises
    ------
    BadFile
        The file is missing, damaged, a decompression bomb, or has no such field.
    """
    try:
        if path.stat().st_size > _MAX_FILE:
            raise BadFile(f"refused: larger than {_MAX_FILE >> 20} MB, which no mask of SBD is")
        _check_inflated_size(path.read_bytes())
        segmentation = loadmat(path, variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0]
    except BadFile:
        raise
    except FileNotFoundError:
        raise BadFile("missing") from None
    except (KeyError, IndexError, ValueError, TypeError):
        raise BadFile("has no field GTcls.Segmentation, or is damaged") from None
    except Exception as error:  # a damaged file makes the reader raise nearly anything
        raise BadFile(f"unreadable ({type(error).__name__})") from None
    if not isinstance(segmentation, np.ndarray) or segmentation.dtype != np.uint8 or segmentation.ndim != 2:
        raise BadFile("GTcls.Segmentation is no array of 8-bit indices")
    return np.ascontiguousarray(segmentation)


def _check_inflated_size(content: bytes) -> None:
    """Inflate the compressed elements of a version 5 file, no further than a mask of SBD could go.

    A file is a header of 128 bytes, then elements: type, length (4 bytes each), and as many bytes as that.
    """
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None or struct.unpack(f"{order}H", content[124:126])[0] != 0x0100:
        raise BadFile("is no MATLAB 5.0 file, which SBD's masks are")
    position, room = _HEADER, _MAX_INFLATED
    while position + 8 <= len(content):
        kind, length = struct.unpack_from(f"{order}II", content, position)
        if position + 8 + length > len(content):
            raise BadFile("is truncated")
        if kind == _COMPRESSED:
            element = content[position + 8 : position + 8 + length]
            room -= len(zlib.decompressobj().decompress(element, room))
            if room <= 0:
                raise BadFile(f"refused: unpacks to more than {_MAX_INFLATED >> 20} MB (decompression bomb)")
        position += 8 + length
