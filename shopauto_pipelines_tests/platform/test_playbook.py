"""What is read of the playbook, and when."""

import os

from shopauto_pipelines.platform.playbook import once_per_change


def test_a_loader_reads_a_folder_again_only_when_a_file_in_it_is_new_changed_or_gone(tmp_path):
    read = []
    load = once_per_change(lambda folder: read.append(folder) or sorted(path.name for path in folder.rglob("*.yaml")))
    (tmp_path / "a.yaml").touch()
    assert load(tmp_path) is load(tmp_path)
    (tmp_path / "b.yaml").touch()
    assert load(tmp_path) == ["a.yaml", "b.yaml"]
    os.utime(tmp_path / "b.yaml", (0, 0))
    load(tmp_path)
    (tmp_path / "b.yaml").unlink()
    assert load(tmp_path) == ["a.yaml"]
    assert len(read) == 3  # what it was at first is still known
