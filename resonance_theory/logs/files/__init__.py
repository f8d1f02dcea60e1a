"""Files as they lie: arrays, tables, nested values. What they mean is for `logs.readers` to say."""
