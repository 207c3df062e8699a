"""A utility's own way in: registers that its master reads and writes over Modbus TCP."""
