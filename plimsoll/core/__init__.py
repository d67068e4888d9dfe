"""THE NOUNS: records, spec, parts, trials, decisions."""
