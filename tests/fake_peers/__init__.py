"""Peers for octavo.bench's child process: small, honest about the contract, not about the time."""
