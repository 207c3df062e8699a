"""BLAKE3 twice over a header, Alephium's proof of work."""
