"""Small tar shards and Parquet files, written by other programs' writers."""

import io
import tarfile


def write_tar(path, members, layout=tarfile.PAX_FORMAT):
    """Writes a tar archive of `(name, bytes)`."""
    with tarfile.open(path, "w", format=layout) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_parquet(path, columns, **options):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
    return path
