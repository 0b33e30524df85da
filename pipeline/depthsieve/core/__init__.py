"""What everything else stands on: records, errors, tables on disk, processes and their ends."""
