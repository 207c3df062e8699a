"""Switched outlets: PDUs and contactors over SNMP, Modbus and Redfish.

`driver` is the contract and the read-back that no device's word replaces, `tables` the objects of
each PDU model, `sequence` decides which outlet may be switched when, and `build` makes the driver
that a configuration asks for. A protocol's library is imported only when such a PDU is built.
"""
