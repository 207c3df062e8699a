"""A small OpenADR 3.1 server on this machine: for the demo, for tests, and for a dry run."""
