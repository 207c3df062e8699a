"""Batch jobs: a dataset through a user's callable or command, effectively once.

jobs job wishes              all of them; one of them; what is wanted, on disk
findings shortage            what a job's folder says; why it has too few workers
crew worker                  a job's workers; the actor that works
chunk_loop claims            chunk after chunk; who is at which
plans chunks                 what a job works on; what is done, as files
datasets formats rows        items in, items and dead letters out
callables commands trial     the user's work, and what to do with an item that fails
progress job_log             rates; what was printed
"""
