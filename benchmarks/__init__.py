"""Throughput on this machine: each measurement runs several times beside what it is compared with, in one go."""
