"""Emulated PDUs and contactors on loopback: real SNMP, Modbus and Redfish, and faults on demand."""
