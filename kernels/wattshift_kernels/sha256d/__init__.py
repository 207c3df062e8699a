"""SHA-256d, Bitcoin's proof of work: one CUDA source, one CPU search, one reference."""
