import numpy as np
import pytest

from benchmarks.corrupt_files import DAMAGES, OUTCOMES, outcome, reader, sound_files

FILES = sound_files(np.random.default_rng(0))


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_damaged_file_is_read_or_refused_with_its_name(tmp_path, name, damage):
    path, read, rng = tmp_path / name, reader(name), np.random.default_rng(1)
    path.write_bytes(FILES[name])
    expected = read(path)
    assert outcome(read, path, expected) == "read right"
    for _ in range(8):
        path.write_bytes(damage(FILES[name], rng))
        found = outcome(read, path, expected)
        assert found in OUTCOMES[:4]
        # Labels must be right; images, where their format has check sums.
        assert found != "read wrong" or not name.endswith(".png")
