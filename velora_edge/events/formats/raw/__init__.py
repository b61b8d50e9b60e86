"""Reader of Prophesee RAW files: EVT2, EVT2.1 and EVT3."""
