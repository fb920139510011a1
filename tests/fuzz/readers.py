"""All readers under test, by the kind of file."""

from tests.fuzz import data_files, image_files, run_files, weight_files

READERS = {**weight_files.READERS, **run_files.READERS, **data_files.READERS, **image_files.READERS}
